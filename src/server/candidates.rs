//! `/api/v1/models/{name}/candidates`: the ONNX files beside the file of a model that were compared with another one, and the reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::Json;
use axum::extract;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::blocking::blocking;
use super::model::RequestedModel;
use super::page::HTML;
use super::problem::Problem;
use crate::comparison::report::{Comparison, Verdict};
use crate::comparison::{HTML_FILE, JSON_FILE, report_folder};
use crate::view::NamedModel;

/// A larger report is not read.
const MAX_REPORT: u64 = 64 << 20;

/// The page of a report has its style and its pictures in itself, and no scripts.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                             form-action 'none'; frame-ancestors 'none'; sandbox";

/// A file that may replace that of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = Candidate)]
pub(super) struct CandidateReport {
    /// Name of the file, without the extension.
    #[schema(example = "yard")]
    name: String,
    /// Path of the ONNX file, for a request to use it.
    #[schema(value_type = String)]
    path: PathBuf,
    /// Whether the model runs this file.
    running: bool,
    /// `better`, `worse` or `not-distinguishable`: the file compared with `compared_with`.
    verdict: &'static str,
    /// The verdict as a sentence, with its figures.
    summary: String,
    /// Name of the file that it was compared with.
    #[schema(example = "everyday.onnx")]
    compared_with: String,
    /// When it was compared (RFC 3339).
    compared_at: String,
    /// Whether the file was changed after the comparison.
    outdated: bool,
    /// Path of the report with pictures in this API.
    report: String,
}

/// A file beside that of the model, and its comparison.
struct Candidate {
    path: PathBuf,
    comparison: Comparison,
}

/// The part of the path that names a candidate.
#[derive(serde::Deserialize)]
pub(super) struct CandidatePart {
    candidate: String,
}

/// List the compared files of a model
///
/// The ONNX files in the folder of the model's file that `maskcast model compare` compared with another model, the newest comparison
/// first. For operators: reports contain pictures of cameras.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}/candidates",
    operation_id = "list_candidates",
    tag = "model",
    params(("name" = String, Path, description = "Name of the model.", example = "default")),
    responses(
        (status = 200, description = "The compared files.", body = Vec<CandidateReport>),
        (status = 404, description = "No model has this name; `models` lists the names."),
    )
)]
pub(super) async fn list(named: RequestedModel) -> Result<Json<Vec<CandidateReport>>, Problem> {
    let model = named.into_model();
    let found = blocking(move || {
        let running = model.running().map(|running| running.path.clone());
        let report = |found: Candidate| CandidateReport::of(found, &model.name, running.as_deref());
        candidates(&model).into_iter().map(report).collect()
    });
    found.await.map(Json)
}

/// Show the report of a comparison
///
/// The page with pictures, a single file without scripts. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}/candidates/{candidate}/report.html",
    operation_id = "show_candidate_report",
    tag = "model",
    params(
        ("name" = String, Path, description = "Name of the model.", example = "default"),
        ("candidate" = String, Path, description = "`name` of the compared file.", example = "yard"),
    ),
    responses(
        (status = 200, description = "The page.", content_type = "text/html", body = String),
        (status = 404, description = "No model has this name, or no compared file."),
    )
)]
pub(super) async fn html(
    named: RequestedModel,
    extract::Path(part): extract::Path<CandidatePart>,
) -> Result<Response, Problem> {
    let bytes = read(named, part.candidate, HTML_FILE).await?;
    let mut response = ([(header::CONTENT_TYPE, HTML)], bytes).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY));
    Ok(response)
}

/// Get the result of a comparison
///
/// The document that `maskcast schema --message comparison` describes. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}/candidates/{candidate}/report.json",
    operation_id = "get_candidate_report",
    tag = "model",
    params(
        ("name" = String, Path, description = "Name of the model.", example = "default"),
        ("candidate" = String, Path, description = "`name` of the compared file.", example = "yard"),
    ),
    responses(
        (status = 200, description = "The result.", body = Object),
        (status = 404, description = "No model has this name, or no compared file."),
    )
)]
pub(super) async fn json(
    named: RequestedModel,
    extract::Path(part): extract::Path<CandidatePart>,
) -> Result<Response, Problem> {
    let bytes = read(named, part.candidate, JSON_FILE).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// A file of the report of a candidate. The name is compared with those that are listed, and is never a part of a path.
async fn read(named: RequestedModel, name: String, file: &'static str) -> Result<Vec<u8>, Problem> {
    let model = named.into_model();
    let missing = || Problem::new(StatusCode::NOT_FOUND, "there is no compared file with this name".into());
    let found = blocking(move || {
        let listed = candidates(&model);
        let candidate = listed.iter().find(|candidate| stem(&candidate.path) == name)?;
        read_bounded(&report_folder(&candidate.path).join(file))
    });
    found.await?.ok_or_else(missing)
}

impl CandidateReport {
    fn of(Candidate { path, comparison }: Candidate, model: &str, running: Option<&Path>) -> CandidateReport {
        let name = stem(&path);
        let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
        CandidateReport {
            report: format!("/api/v1/models/{model}/candidates/{encoded}/{HTML_FILE}"),
            running: running == Some(&path),
            verdict: match comparison.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::NotDistinguishable => "not-distinguishable",
            },
            outdated: is_outdated(&path, &comparison),
            summary: comparison.summary,
            compared_with: comparison.old.file,
            compared_at: comparison.at,
            name,
            path,
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// The compared files in the folders of the model's files, the newest comparison first.
fn candidates(model: &NamedModel) -> Vec<Candidate> {
    let running = model.running().map(|running| running.path.clone());
    let files = running.into_iter().chain([model.files().configured]);
    let mut folders: Vec<PathBuf> = files.filter_map(|file| file.parent().map(Path::to_path_buf)).collect();
    folders.sort();
    folders.dedup();
    let mut found: Vec<Candidate> = folders.iter().flat_map(|folder| in_folder(folder)).collect();
    found.sort_by(|a, b| b.comparison.at.cmp(&a.comparison.at).then_with(|| a.path.cmp(&b.path)));
    found
}

fn in_folder(folder: &Path) -> Vec<Candidate> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let models = files.filter(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    let compared = |path: PathBuf| {
        let text = read_bounded(&report_folder(&path).join(JSON_FILE))?;
        let comparison: Comparison = serde_json::from_slice(&text).ok()?;
        // A report that was copied from another model says nothing about this file.
        let is_own = path.file_name().is_some_and(|name| *name == *comparison.new.file);
        is_own.then_some(Candidate { path, comparison })
    };
    models.filter_map(compared).collect()
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let facts = fs::metadata(path).ok()?;
    (facts.is_file() && facts.len() <= MAX_REPORT).then(|| fs::read(path).ok())?
}

/// Whether the file is not the one that was compared. It is only read if it was written after the comparison.
fn is_outdated(path: &Path, comparison: &Comparison) -> bool {
    let written = fs::metadata(path).and_then(|facts| facts.modified());
    let written = written.unwrap_or(SystemTime::UNIX_EPOCH);
    let compared: Result<Timestamp, _> = comparison.at.parse();
    match (Timestamp::try_from(written), compared) {
        (Ok(written), Ok(compared)) if written <= compared => false,
        _ => fs::read(path).map_or(true, |bytes| hex::encode(Sha256::digest(bytes)) != comparison.new.sha256),
    }
}
