//! The shares of the classes minute by minute, from the history; and what all handlers that read the history share.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::app::{App, NamedStream, typed};
use super::problem::Problem;
use crate::base::bounded::field;
use crate::config::{duration_text, parse_duration};
use crate::history::{History, HistoryError, HistoryReader, ShareQuery, StoredShares};

const MINUTE: Duration = Duration::from_secs(60);

/// The range without `from`.
const DEFAULT_RANGE: Duration = Duration::from_secs(3600);

/// The longest range with intervals of a minute, unless `step` is given.
const FINE_RANGE: Duration = Duration::from_secs(6 * 3600);

/// Lengths of intervals in minutes, for longer ranges.
const STEPS: [u64; 10] = [2, 5, 10, 15, 30, 60, 120, 360, 720, 1440];

/// The most intervals without and with `step`.
const DEFAULT_POINTS: u64 = 720;
const MAX_POINTS: u64 = 50_000;

/// Which shares are returned.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareParameters {
    /// Start of the range (RFC 3339); an hour before `to` by default.
    from: Option<String>,
    /// End of the range (RFC 3339); now by default.
    to: Option<String>,
    /// Name of a zone; the whole frame by default.
    zone: Option<String>,
    /// Name of a class; all classes by default.
    class: Option<String>,
    /// Length of an interval in whole minutes: `1m`, `15m`, `1h`. By default a minute for ranges up to 6 hours, and longer
    /// intervals for longer ranges, so that there are at most 720. With it, there may be at most 50000.
    step: Option<String>,
    /// `json` or `csv`; by default CSV if the header `Accept` has `text/csv`.
    format: Option<String>,
}

/// Shares of the classes in a part of the frame, interval by interval.
#[derive(Serialize, ToSchema)]
pub(super) struct ShareHistory {
    /// Start of the range.
    #[schema(value_type = String)]
    from: Timestamp,
    /// End of the range.
    #[schema(value_type = String)]
    to: Timestamp,
    /// Length of an interval in seconds.
    step_s: i64,
    /// Name of the zone; null for the whole frame.
    zone: Option<String>,
    /// The classes that occur in the range.
    series: Vec<ShareSeries>,
}

/// The shares of a class.
#[derive(Serialize, ToSchema)]
struct ShareSeries {
    /// Name of the class.
    class: String,
    /// For each interval that has masks: its start in milliseconds since 1970, the mean and the maximum of the shares of the class
    /// in its masks, 0 to 1. Intervals begin at multiples of their length since 1970, UTC.
    #[schema(value_type = Vec<Vec<f64>>)]
    points: Vec<(i64, f64, f64)>,
}

/// Get the history of a stream
///
/// The mean and the maximum of the share of each class in the frame or in a zone, minute by minute or in longer intervals. A minute
/// is stored when it is over. As CSV, the columns are `time` (RFC 3339), `zone` (empty for the whole frame), `class`, `mean` and
/// `max`. A name that begins with `=`, `+`, `-` or `@` has a `'` before it, so that spreadsheets do not take it for a formula.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/history",
    operation_id = "stream_history",
    tag = "events",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate"), ShareParameters),
    responses(
        (status = 200, description = "The shares.", content((ShareHistory = "application/json"), (String = "text/csv"))),
        (status = 400, description = "A parameter is wrong; `detail` says which."),
        (status = 404, description = "The stream or its zone does not exist, or the history is off."),
        (status = 503, description = "The history cannot be read."),
    )
)]
pub(super) async fn shares(
    named: NamedStream,
    headers: HeaderMap,
    parameters: Result<Query<ShareParameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let history = history_of(&named.app)?;
    let Query(parameters) = parameters.map_err(refused_parameters)?;
    let accepts_csv =
        headers.get_all(header::ACCEPT).iter().any(|accept| accept.to_str().unwrap_or_default().contains("text/csv"));
    let is_csv = match parameters.format.as_deref() {
        None => accepts_csv,
        Some("csv") => true,
        Some("json") => false,
        Some(other) => return Err(bad(format!("format must be json or csv, not {:?}", field(other)))),
    };
    let stream = named.stream();
    let query = share_query(&stream.status.name, parameters, Timestamp::now())?;
    let found = read(&history, {
        let query = query.clone();
        move |reader| reader.shares(&query)
    })
    .await?;
    if let Some(zone) = query.zone.as_ref().filter(|_| !found.is_known)
        && !stream.config.zones.iter().any(|known| known.name == *zone)
    {
        let zones: Vec<String> = stream.config.zones.iter().map(|zone| format!("{:?}", zone.name)).collect();
        let zones = if zones.is_empty() { "none".into() } else { zones.join(", ") };
        let detail = format!("stream {} has no zone {:?}; its zones: {zones}", stream.status.name, field(zone));
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    if is_csv {
        let text = csv_of(&query, &found).map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the shares cannot be written as CSV: {error}"))
        })?;
        return Ok(typed("text/csv; charset=utf-8", text));
    }
    let StoredShares { times, classes, .. } = found;
    let series = classes.into_iter().map(|(class, values)| {
        let points = times.iter().zip(values).map(|(time, (mean, max))| (*time, rounded(mean), rounded(max)));
        ShareSeries { class, points: points.collect() }
    });
    let (series, ShareQuery { from, to, zone, step, .. }) = (series.collect(), query);
    Ok(Json(ShareHistory { from, to, step_s: step * 60, zone, series }).into_response())
}

fn share_query(stream: &str, parameters: ShareParameters, now: Timestamp) -> Result<ShareQuery, Problem> {
    let ShareParameters { from, to, zone, class, step, .. } = parameters;
    let to = time("to", to.as_deref())?.unwrap_or(now);
    let from = match time("from", from.as_deref())? {
        Some(from) => from,
        None => to.checked_sub(DEFAULT_RANGE).map_err(|_| bad("to is too early"))?,
    };
    let range = Duration::try_from(to.duration_since(from)).unwrap_or_default();
    if range.is_zero() {
        return Err(bad(format!("from must be before to: {from} is not before {to}")));
    }
    let step = match step {
        None => default_step(range),
        Some(text) => {
            let whole = |step: &Duration| *step >= MINUTE && step.as_millis().is_multiple_of(60_000);
            let step = parse_duration(&text).filter(whole).ok_or_else(|| {
                bad(format!("step must be a number of whole minutes, such as 1m, 15m or 1h, not {:?}", field(&text)))
            })?;
            let points = range.as_secs().div_ceil(step.as_secs());
            if points > MAX_POINTS {
                let step = duration_text(step);
                return Err(bad(format!("step {step} makes {points} points; at most {MAX_POINTS} are returned")));
            }
            step.as_secs() / 60
        }
    };
    let step = i64::try_from(step).map_err(|_| bad("step is too long"))?;
    Ok(ShareQuery { stream: stream.to_owned(), zone, class, from, to, step })
}

/// The length of an interval in minutes.
fn default_step(range: Duration) -> u64 {
    if range <= FINE_RANGE {
        return 1;
    }
    let least = range.as_secs().div_ceil(DEFAULT_POINTS * 60);
    let day = STEPS[STEPS.len() - 1];
    STEPS.into_iter().find(|step| *step >= least).unwrap_or_else(|| least.next_multiple_of(day))
}

/// Six digits after the point: a pixel of a mask is more.
fn rounded(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

fn csv_of(query: &ShareQuery, shares: &StoredShares) -> Result<String, Box<dyn std::error::Error>> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["time", "zone", "class", "mean", "max"])?;
    for (at, time) in shares.times.iter().enumerate() {
        let time = Timestamp::from_millisecond(*time)?.to_string();
        for (class, values) in &shares.classes {
            let (mean, max) = values[at];
            let zone = cell(query.zone.as_deref().unwrap_or_default());
            out.write_record([&time, &*zone, &cell(class), &rounded(mean).to_string(), &rounded(max).to_string()])?;
        }
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

/// Parameters that are not known, or are given twice.
pub(super) fn refused_parameters(error: QueryRejection) -> Problem {
    let text = error.body_text();
    // The rest of the text is about the parser: "Failed to deserialize query string: unknown field `limits`, expected …".
    let cause = text.split_once(": ").map_or(text.as_str(), |(_, cause)| cause);
    bad(format!("the parameters cannot be read: {}", cause.replace("field", "parameter")))
}

/// Text of a cell that a spreadsheet does not take for a formula: `'` is put before `=`, `+`, `-` and `@`.
fn cell(text: &str) -> Cow<'_, str> {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => Cow::Owned(format!("'{text}")),
        _ => Cow::Borrowed(text),
    }
}

/// The history of the service.
pub(super) fn history_of(app: &App) -> Result<Arc<History>, Problem> {
    app.view.history().cloned().ok_or_else(|| {
        let detail = "the history is off: set dir in [history] of the configuration file, or run the service with a state \
                      directory (STATE_DIRECTORY), and restart it";
        Problem::new(StatusCode::NOT_FOUND, detail.into())
    })
}

/// Runs a query on a blocking thread: disks may be slow. Few run at a time.
pub(super) async fn read<T: Send + 'static>(
    history: &Arc<History>,
    query: impl FnOnce(&HistoryReader) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, Problem> {
    // Never closed.
    let _permit = history.reader.permits.acquire().await;
    let shared = Arc::clone(history);
    let result = tokio::task::spawn_blocking(move || query(&shared.reader)).await;
    let unavailable = |problem: String| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the history cannot be read: {problem}"))
    };
    match result {
        Ok(Ok(found)) => Ok(found),
        // Why it could not be opened says more than that it is not there.
        Ok(Err(error)) => Err(unavailable(history.status.problem().unwrap_or_else(|| error.to_string()))),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// 400
pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail.into())
}

/// A time parameter.
pub(super) fn time(name: impl Display, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            // A plus sign that is not escaped arrives as a space.
            let example = "2026-11-30T08:00:00Z or 2026-11-30T09:00:00%2B01:00";
            bad(format!("{name} must be a time of RFC 3339, such as {example}, not {:?}", field(text)))
        })
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(from: Option<&str>, to: Option<&str>, step: Option<&str>) -> ShareParameters {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        ShareParameters { from: owned(from), to: owned(to), zone: None, class: None, step: owned(step), format: None }
    }

    #[test]
    fn intervals_are_longer_for_longer_ranges() {
        let minutes = |hours: u64| default_step(Duration::from_secs(3600 * hours));
        let steps = [1, 6, 7, 12, 24, 25, 7 * 24, 30 * 24, 365 * 24, 24 * 7200].map(minutes);
        assert_eq!(steps, [1, 1, 2, 2, 2, 5, 15, 60, 1440, 14_400]);
        for hours in 1..2000 {
            assert!(hours * 60 <= minutes(hours) * DEFAULT_POINTS, "{hours}");
        }
    }

    #[test]
    fn wrong_ranges_and_steps_are_refused_with_the_reason() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let query = |from, to, step| share_query("gate", parameters(from, to, step), now);
        let hour = query(None, None, None).unwrap();
        assert_eq!((hour.from.to_string(), hour.to, hour.step), ("2026-11-30T11:00:00Z".into(), now, 1));
        let day = query(Some("2026-11-29T13:00:00+01:00"), None, Some("1h")).unwrap();
        assert_eq!((day.from.to_string(), day.step), ("2026-11-29T12:00:00Z".into(), 60));
        for (from, to, step, expected) in [
            (Some("yesterday"), None, None, "from must be a time of RFC 3339"),
            (None, Some("2026-11-30T09:00:00 01:00"), None, "to must be a time of RFC 3339"),
            (Some("2026-11-30T12:00:00Z"), None, None, "from must be before to"),
            (Some("2026-11-30T13:00:00Z"), None, None, "from must be before to"),
            (None, None, Some("90s"), "step must be a number of whole minutes"),
            (None, None, Some("0m"), "step must be a number of whole minutes"),
            (None, None, Some("soon"), "step must be a number of whole minutes"),
            (Some("2026-01-01T00:00:00Z"), None, Some("1m"), "step 1m makes 480240 points; at most 50000"),
        ] {
            let problem = query(from, to, step).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
            assert!(problem.detail.starts_with(expected), "{} / {expected}", problem.detail);
        }
    }

    #[test]
    fn csv_has_a_line_for_each_interval_and_class() {
        let (from, to) = (Timestamp::UNIX_EPOCH, "1970-01-01T01:00:00Z".parse().unwrap());
        let (stream, zone) = ("gate".into(), Some("bay, \"left\"".into()));
        let query = ShareQuery { stream, zone, class: None, from, to, step: 1 };
        let classes =
            [("car".to_owned(), vec![(0.25, 0.5), (0.0, 0.0)]), ("=x,y".to_owned(), vec![(1.0 / 3.0, 1.0); 2])];
        let shares = StoredShares { times: vec![0, 60_000], classes: classes.into(), is_known: true };
        let text = csv_of(&query, &shares).unwrap();
        let zone = "\"bay, \"\"left\"\"\"";
        let expected = format!(
            "time,zone,class,mean,max\n1970-01-01T00:00:00Z,{zone},\"'=x,y\",0.333333,1\n\
             1970-01-01T00:00:00Z,{zone},car,0.25,0.5\n1970-01-01T00:01:00Z,{zone},\"'=x,y\",0.333333,1\n\
             1970-01-01T00:01:00Z,{zone},car,0,0\n"
        );
        assert_eq!(text, expected);
    }
}
