//! Changes that clients of the API request: changes of an overlay apply to the next frame, changes of streams are applied
//! like a reload. Both are written to the configuration file, which stays the only place of the settings.
//!
//! The run loop applies changes one at a time; clients wait for the result. A stream is changed only if the file can be
//! written, because otherwise the next start would lose the change. An overlay is changed anyway, and the result says that
//! the change is not saved.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::models::PreparedModels;
use super::redaction::check_redaction;
use super::reserved::{check_password_host, check_recording_folder, check_reserved_keys, check_source_kind};
use super::saved_models::save_models;
use super::{EarlyRequests, Service};
use crate::base::paths::state_folders;
use crate::config::{
    self, Config, ConfigError, ConfigErrors, Edit, EditError, EncoderChoice, Object, OverlayConfig, Replaced,
    SourceHost, StreamConfig, overlay_difference, patched_overlay,
};
use crate::publish::encoder::H264;
use crate::view::MAX_PENDING_CHANGES;
use crate::view::request::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest, SaveError};

/// Minimum time between writes of overlay changes: a user may be moving a slider.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The same while the file cannot be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Applies changes and writes them to the configuration file.
pub struct Changes {
    path: PathBuf,
    /// The state folders of the service.
    state: Vec<PathBuf>,
    /// Streams whose overlay may differ from that of the file.
    unsaved: BTreeSet<String>,
    last_write: Option<Instant>,
    /// Why the last write failed.
    write_error: Option<Arc<SaveError>>,
    /// Changes of streams that wait for the first model, which must have their classes.
    waiting_for_model: Vec<ChangeRequest>,
    /// Changes of streams that wait for the test of encoders, and the thread that tests them.
    waiting_for_encoders: Vec<ChangeRequest>,
    encoder_test: Option<JoinHandle<()>>,
}

impl EarlyRequests for Changes {
    /// Applies a change that does not need the model; others wait for [`Changes::apply_waiting_for_model`].
    fn apply_early(&mut self, request: ChangeRequest, service: &mut Service) {
        self.waiting_for_model.retain(|waiting| !waiting.ticket.is_withdrawn());
        match request.change {
            Change::Overlay { .. } => self.apply(request, service),
            Change::Stream(_) if self.waiting_for_model.len() < MAX_PENDING_CHANGES => {
                self.waiting_for_model.push(request);
            }
            Change::Stream(_) => {
                let refusal = ChangeRefusal::ModelLoading("streams can be changed when it is loaded");
                // This fails if the client has disconnected.
                let _ = request.result.send(Err(refusal));
            }
        }
    }

    /// Writes unsaved overlays, at most once in the interval, and the paths of changed models.
    fn tick(&mut self, service: &Service) {
        save_models(&self.path, &service.view);
        let interval = if self.write_error.is_some() { RETRY_INTERVAL } else { WRITE_INTERVAL };
        if !self.unsaved.is_empty() && self.last_write.is_none_or(|at| at.elapsed() >= interval) {
            self.save_overlays(service);
        }
    }
}

impl Changes {
    /// For the configuration file at `path`.
    pub fn new(path: PathBuf) -> Self {
        let state = state_folders(&std::env::var_os("STATE_DIRECTORY").unwrap_or_default()).collect();
        Changes {
            path,
            state,
            unsaved: BTreeSet::new(),
            last_write: None,
            write_error: None,
            waiting_for_model: Vec::new(),
            waiting_for_encoders: Vec::new(),
            encoder_test: None,
        }
    }

    /// Applies a change and sends the result, unless its client has disconnected. A change with an encoder that was not
    /// tested yet, which may hang for seconds, waits for [`Changes::apply_waiting_for_encoders`].
    pub fn apply(&mut self, request: ChangeRequest, service: &mut Service) {
        if request.ticket.is_withdrawn() {
            return;
        }
        if let Change::Stream(edit) = &request.change
            && !self.encoders_are_tested(edit)
        {
            self.waiting_for_encoders.push(request);
            return;
        }
        if !request.ticket.begin() {
            return;
        }
        let ChangeRequest { change, host, result, .. } = request;
        let outcome = match &change {
            Change::Overlay { stream, patch } => self.change_overlay(stream, patch, service),
            Change::Stream(edit) => self.change_stream(edit, host.as_ref(), service),
        };
        if result.send(outcome).is_err() {
            tracing::debug!("API client disconnected before the result of its change");
        }
    }

    /// Applies the changes that wait for the test of encoders, if it has ended.
    pub fn apply_waiting_for_encoders(&mut self, service: &mut Service) {
        if self.encoder_test.take_if(|test| test.is_finished()).is_some() {
            for request in std::mem::take(&mut self.waiting_for_encoders) {
                self.apply(request, service);
            }
        }
    }

    /// Whether the encoders of the file and of this change have been tested. If not, starts the test. The change itself is
    /// not validated here: it may name files that the API must not read.
    fn encoders_are_tested(&mut self, edit: &Edit) -> bool {
        let encoder_of = |settings: &Object| {
            let name = settings.get("encode")?.get("encoder")?.as_str()?;
            Some(H264::choice_by_name(name))
        };
        let changed = match edit {
            Edit::Add(settings) => encoder_of(settings).or(Some(EncoderChoice::Auto)),
            Edit::Change { patch, .. } => encoder_of(patch),
            Edit::Remove { .. } => None,
        };
        // Errors in the file are reported when the change is applied.
        let file = config::load(&self.path).map(|config| config.streams).unwrap_or_default();
        let choices: Vec<_> = file.iter().map(|stream| stream.encode.encoder).chain(changed).collect();
        if choices.iter().all(|choice| H264::is_probed(*choice)) {
            return true;
        }
        if self.encoder_test.is_none() {
            let test_all = move || {
                for choice in choices {
                    // Errors are reported when the change is applied.
                    let _ = H264::choose(choice, &[]);
                }
            };
            match std::thread::Builder::new().name("encoders".into()).spawn(test_all) {
                Ok(thread) => self.encoder_test = Some(thread),
                // Then the change is applied at once and tests the encoders itself.
                Err(_) => return true,
            }
        }
        false
    }

    /// Applies the changes that wait for the model, in their order.
    pub fn apply_waiting_for_model(&mut self, service: &mut Service) {
        for request in std::mem::take(&mut self.waiting_for_model) {
            self.apply(request, service);
        }
    }

    /// Writes unsaved overlays and paths of models at once: before the file is read again, and at the end.
    pub fn flush(&mut self, service: &Service) {
        save_models(&self.path, &service.view);
        if !self.unsaved.is_empty() {
            self.save_overlays(service);
        }
    }

    /// Discards unsaved overlays: the file was read and applied.
    pub fn discard_unsaved(&mut self) {
        self.unsaved.clear();
    }

    fn change_overlay(
        &mut self,
        name: &str,
        patch: &Object,
        service: &mut Service,
    ) -> Result<ChangeOutcome, ChangeRefusal> {
        let Some(current) = service.config_of(name) else { return Err(ChangeRefusal::NoStream(name.to_owned())) };
        let mut changed = current.clone();
        let key = format!("stream[{name}].overlay");
        changed.overlay = patched_overlay(&current.overlay, patch, &key).map_err(ChangeRefusal::Invalid)?;
        if service.view.labels_of(&changed.model).is_none() && names_new_classes(&changed.overlay, &current.overlay) {
            return Err(ChangeRefusal::ModelLoading(
                "hide and colors name its classes; all other keys can be changed now",
            ));
        }
        service.check_labels(&changed).map_err(ChangeRefusal::Invalid)?;
        if changed.overlay != current.overlay {
            service.set_overlay(name, &changed.overlay);
            self.unsaved.insert(name.to_owned());
        }
        if !self.unsaved.is_empty() && self.last_write.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL) {
            self.save_overlays(service);
        }
        Ok(ChangeOutcome { not_saved: if self.unsaved.is_empty() { None } else { self.write_error.clone() } })
    }

    /// Writes the unsaved overlays to the file.
    fn save_overlays(&mut self, service: &Service) {
        self.last_write = Some(Instant::now());
        match self.write_overlays(service) {
            Ok(()) => {
                if self.write_error.take().is_some() {
                    tracing::info!("overlay changes saved again: {}", self.path.display());
                }
                self.unsaved.clear();
            }
            Err(error) => {
                // Each problem is logged once.
                let text = error.to_string();
                if self.write_error.as_ref().is_none_or(|before| before.to_string() != text) {
                    tracing::warn!("overlay changes not saved, they are lost at the next start: {text}");
                }
                self.write_error = Some(Arc::new(error));
            }
        }
    }

    fn write_overlays(&self, service: &Service) -> Result<(), SaveError> {
        let invalid = |errors| SaveError::FileInvalid { path: self.path.clone(), errors };
        let before = config::read(&self.path).map_err(invalid)?;
        let file = config::parse(&before, &self.path).map_err(invalid)?;
        let mut text = before.clone();
        // A stream that was removed from the file by hand is not added again.
        for stream in file.streams.iter().filter(|stream| self.unsaved.contains(&stream.name)) {
            let Some(running) = service.config_of(&stream.name) else { continue };
            let overlay = overlay_difference(&stream.overlay, &running.overlay);
            if !overlay.is_empty() {
                let patch = Object::from_iter([("overlay".to_owned(), overlay.into())]);
                let edit = Edit::Change { stream: stream.name.clone(), patch };
                text = config::edit(&text, &edit)?;
            }
        }
        if text == before {
            return Ok(());
        }
        config::parse(&text, &self.path).map_err(invalid)?;
        Ok(config::replace(&self.path, &before, &text).map(drop)?)
    }

    fn change_stream(
        &mut self,
        edit: &Edit,
        host: Option<&SourceHost>,
        service: &mut Service,
    ) -> Result<ChangeOutcome, ChangeRefusal> {
        // The file that is read now must have all previous changes.
        self.flush(service);
        let before = config::read(&self.path).map_err(ChangeRefusal::FileInvalid)?;
        let file = config::parse(&before, &self.path).map_err(ChangeRefusal::FileInvalid)?;
        let new_models = service.new_models(&file);
        if !new_models.is_empty() {
            return Err(ChangeRefusal::NewModels(new_models));
        }
        check_names(edit, &file)?;
        self.check_reserved(edit, &file).map_err(ChangeRefusal::Forbidden)?;
        let after = config::edit(&before, edit).map_err(|error| match error {
            EditError::NoStream(name) => ChangeRefusal::NoStream(name),
            EditError::Value(error) => ChangeRefusal::Invalid(vec![error]),
            error @ (EditError::Syntax(_) | EditError::NoModel(_)) => ChangeRefusal::Edit(error),
        })?;
        let config = config::parse(&after, &self.path)
            .map_err(|errors| ChangeRefusal::Invalid(without_file_positions(errors, edit, &file)))?;
        check_redaction(edit, &file, &config, host).map_err(ChangeRefusal::Forbidden)?;
        check_sources(edit, &file, &config, host).map_err(ChangeRefusal::Forbidden)?;
        service.check(&config).map_err(ChangeRefusal::Invalid)?;
        if after != before {
            let replaced = config::replace(&self.path, &before, &after).map_err(ChangeRefusal::FileUnwritable)?;
            if replaced == Replaced::Closed {
                let file = self.path.display();
                tracing::warn!(
                    "configuration file closed to other local users, because it now contains a password: {file}"
                );
            }
        }
        match service.reload(&config, PreparedModels::default()) {
            Ok(mut done) => {
                if let Some(at) = done.failed.iter().position(|(name, _)| is_about(edit, name)) {
                    let (stream, error) = done.failed.swap_remove(at);
                    let refusal = ChangeRefusal::StreamNotStarted { stream, source: Box::new(error) };
                    self.roll_back(&before, &after, &file, service, &refusal);
                    return Err(refusal);
                }
                self.discard_unsaved();
                tracing::info!("API change applied: {done}");
                done.log_problems();
                Ok(ChangeOutcome::default())
            }
            Err(error) => {
                let refusal = ChangeRefusal::NotApplied(Box::new(error));
                self.roll_back(&before, &after, &file, service, &refusal);
                Err(refusal)
            }
        }
    }

    /// Checks for settings that the API must not set. Before the new text is validated, which accesses the files that it
    /// names.
    fn check_reserved(&self, edit: &Edit, file: &Config) -> Result<(), Vec<ConfigError>> {
        let (Edit::Add(settings) | Edit::Change { patch: settings, .. }) = edit else { return Ok(()) };
        let key = edit.key();
        let base = config::folder_of(&self.path);
        check_reserved_keys(settings, &key)?;
        check_source_kind(settings, &key, file, &base)?;
        check_recording_folder(settings, &key, file, &base, &self.state)
    }

    /// Restores the file and the service after a change that could not be applied.
    fn roll_back(&self, before: &str, after: &str, file: &Config, service: &mut Service, refusal: &ChangeRefusal) {
        tracing::error!("API change rolled back, it could not be applied: {refusal}");
        if let Err(error) = config::replace(&self.path, after, before) {
            tracing::error!("API change not rolled back in the configuration file: {error}; undo it by hand");
        }
        if let Err(error) = service.reload(file, PreparedModels::default()) {
            tracing::error!("API change not rolled back in the running service: {error}; restart the service");
        }
    }
}

/// Whether `overlay` names classes that `current` does not.
fn names_new_classes(overlay: &OverlayConfig, current: &OverlayConfig) -> bool {
    let names = |overlay: &OverlayConfig| -> BTreeSet<String> {
        let colored = overlay.colors.iter().map(|(name, _)| name);
        let weighted = overlay.weights.iter().map(|(name, _)| name);
        overlay.hide.iter().flatten().chain(colored).chain(weighted).cloned().collect()
    };
    !names(overlay).is_subset(&names(current))
}

/// Whether the change is about the stream of this name.
fn is_about(edit: &Edit, name: &str) -> bool {
    match edit {
        Edit::Add(settings) => settings.get("name").and_then(|name| name.as_str()) == Some(name),
        Edit::Change { stream, .. } | Edit::Remove { stream } => stream == name,
    }
}

/// Checks that do not need the new file.
fn check_names(edit: &Edit, file: &Config) -> Result<(), ChangeRefusal> {
    let exists = |name: &str| file.streams.iter().any(|stream| stream.name == name);
    match edit {
        Edit::Add(settings) => {
            if let Some(name) = settings.get("name").and_then(|name| name.as_str()).filter(|name| exists(name)) {
                return Err(ChangeRefusal::NameTaken(name.to_owned()));
            }
            Ok(())
        }
        Edit::Change { stream, .. } | Edit::Remove { stream } if !exists(stream) => {
            Err(ChangeRefusal::NoStream(stream.clone()))
        }
        Edit::Change { stream, patch } => {
            let key = format!("stream[{stream}]");
            if patch.get("name").is_some_and(|name| name.as_str() != Some(stream)) {
                let error = ConfigError {
                    key: format!("{key}.name"),
                    line: None,
                    problem: "cannot be changed, because it is part of the stream's addresses".into(),
                    help: Some("add a stream with the new name and remove this one".into()),
                };
                return Err(ChangeRefusal::Invalid(vec![error]));
            }
            let unknown = config::unknown_nulls(patch, "stream", &key);
            if unknown.is_empty() { Ok(()) } else { Err(ChangeRefusal::Invalid(unknown)) }
        }
        Edit::Remove { .. } if file.streams.len() == 1 => Err(ChangeRefusal::LastStream),
        Edit::Remove { .. } => Ok(()),
    }
}

/// Checks that the API may add the new sources. A host that was not looked up yet is looked up, for a few seconds at most.
fn check_sources(
    edit: &Edit,
    before: &Config,
    after: &Config,
    host: Option<&SourceHost>,
) -> Result<(), Vec<ConfigError>> {
    let is_known = |stream: &StreamConfig| before.streams.iter().any(|other| other.source.uri == stream.source.uri);
    let mut errors = Vec::new();
    for stream in after.streams.iter().filter(|stream| !is_known(stream)) {
        if let Err(refusal) = before.server.api_sources.check_with(&stream.source.uri, host) {
            let key = format!("stream[{}].source", stream.name);
            errors.push(ConfigError { key, line: None, problem: refusal.to_string(), help: None });
        }
    }
    if let Edit::Change { stream, patch } = edit {
        let source = |config: &Config| {
            config.streams.iter().find(|other| other.name == *stream).map(|other| other.source.clone())
        };
        if let (Some(before), Some(after)) = (source(before), source(after)) {
            errors.extend(
                check_password_host(patch, &before, &after, &format!("stream[{stream}]")).err().unwrap_or_default(),
            );
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Removes line numbers, and the index that is the key of a stream without a valid name: the client does not have the file
/// that was validated.
fn without_file_positions(errors: ConfigErrors, edit: &Edit, before: &Config) -> Vec<ConfigError> {
    let index = format!("stream[{}]", before.streams.len());
    let key = |error: &ConfigError| match (edit, error.key.strip_prefix(&index)) {
        (Edit::Add(_), Some(rest)) => edit.key() + rest,
        _ => error.key.clone(),
    };
    errors.errors.into_iter().map(|error| ConfigError { key: key(&error), line: None, ..error }).collect()
}
