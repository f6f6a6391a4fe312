//! Changes that clients of the API ask for: of the overlay, which take effect with the next frame, and of the streams,
//! which are applied like a reload. Both are written back to the configuration file, which stays the one place where the
//! settings are.
//!
//! The run loop makes them, one after the other; clients wait for the answer. A stream is changed only if the file can be
//! written: else the next start would forget it. An overlay is changed all the same, and the answer says that it is not
//! remembered.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::reserved::{folder_allowed, keys_allowed, kind_allowed, passwords_stay};
use super::{EarlyRequests, ReloadReport, Service};
use crate::config::{
    self, Config, ConfigError, ConfigErrors, Edit, EditError, EncoderChoice, Object, OverlayConfig, Replaced,
    SourceHost, StreamConfig, overlay_difference, patched_overlay,
};
use crate::publish::encoder::H264;
use crate::view::WAITING_CHANGES;
use crate::view::request::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest};

/// Changes of overlays are written at most this often: somebody may be moving a slider.
const PAUSE: Duration = Duration::from_secs(1);

/// And this often while the file cannot be written.
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// Makes changes and writes them back.
pub struct Changes {
    path: PathBuf,
    /// The service's own folders.
    state: Vec<PathBuf>,
    /// Streams whose overlay may differ from the file's.
    pending: BTreeSet<String>,
    tried: Option<Instant>,
    /// Why the last overlays could not be written.
    unwritable: Option<String>,
    /// Changes of streams that wait for the first model: it has to know their classes.
    held: Vec<ChangeRequest>,
    /// Changes of streams that wait until the encoders of their file have been tried out, and the thread that does it.
    untried: Vec<ChangeRequest>,
    trial: Option<JoinHandle<()>>,
}

impl EarlyRequests for Changes {
    /// Makes a change before there is a model, if it needs none; else it waits for [`Changes::make_held`].
    fn make_early(&mut self, asked: ChangeRequest, service: &mut Service) {
        self.held.retain(|held| !held.turn.is_withdrawn());
        match asked.wanted {
            Change::Overlay { .. } => self.make(asked, service),
            Change::Stream(_) if self.held.len() < WAITING_CHANGES => self.held.push(asked),
            Change::Stream(_) => {
                // Nobody listens where the client has gone.
                let _ = asked.answer.send(Err(ChangeRefusal::Loading("streams are changed when it is there".into())));
            }
        }
    }

    /// Writes overlays back whose time has come.
    fn tick(&mut self, service: &Service) {
        let pause = if self.unwritable.is_some() { LONG_PAUSE } else { PAUSE };
        if !self.pending.is_empty() && self.tried.is_none_or(|at| at.elapsed() >= pause) {
            self.remember(service);
        }
    }
}

impl Changes {
    /// Of the configuration file at `path`.
    pub fn new(path: PathBuf) -> Self {
        // systemd's StateDirectory= may list several, separated by colons.
        let state = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        let state = std::env::split_paths(&state).filter(|folder| folder.is_absolute()).collect();
        Changes {
            path,
            state,
            pending: BTreeSet::new(),
            tried: None,
            unwritable: None,
            held: Vec::new(),
            untried: Vec::new(),
            trial: None,
        }
    }

    /// Makes a change and answers, unless its client has gone. One that needs an encoder that was not tried out yet, which
    /// may hang for seconds, is made by [`Changes::make_tried`] when that is over.
    pub fn make(&mut self, asked: ChangeRequest, service: &mut Service) {
        if asked.turn.is_withdrawn() {
            return;
        }
        if let Change::Stream(edit) = &asked.wanted
            && !self.encoders_are_tried(edit)
        {
            self.untried.push(asked);
            return;
        }
        if !asked.turn.begin() {
            return;
        }
        let ChangeRequest { wanted, host, answer, .. } = asked;
        let result = match &wanted {
            Change::Overlay { stream, patch } => self.overlay(stream, patch, service),
            Change::Stream(edit) => self.stream(edit, host.as_ref(), service),
        };
        if answer.send(result).is_err() {
            tracing::debug!("a client has not waited for the answer to its change");
        }
    }

    /// Makes the changes that have waited for encoders to be tried out, once that is over.
    pub fn make_tried(&mut self, service: &mut Service) {
        if self.trial.take_if(|trial| trial.is_finished()).is_some() {
            for asked in std::mem::take(&mut self.untried) {
                self.make(asked, service);
            }
        }
    }

    /// Whether the encoders have been tried out that the file and this change ask for. If not, that begins. The change itself is
    /// not judged here: it may name files that the API may not read.
    fn encoders_are_tried(&mut self, edit: &Edit) -> bool {
        let named = |settings: &Object| {
            let name = settings.get("encode")?.get("encoder")?.as_str()?;
            Some(H264::choice_by_name(name))
        };
        let wanted = match edit {
            Edit::Add(settings) => named(settings).or(Some(EncoderChoice::Auto)),
            Edit::Change { patch, .. } => named(patch),
            Edit::Remove { .. } => None,
        };
        // Errors in the file are reported when the change is to be made.
        let file = config::load(&self.path).map(|config| config.streams).unwrap_or_default();
        let choices: Vec<_> = file.iter().map(|stream| stream.encode.encoder).chain(wanted).collect();
        if choices.iter().all(|choice| H264::is_probed(*choice)) {
            return true;
        }
        if self.trial.is_none() {
            let try_all = move || {
                for choice in choices {
                    // The change that asks for it reports what is wrong with it.
                    let _ = H264::choose(choice, &[]);
                }
            };
            match std::thread::Builder::new().name("encoders".into()).spawn(try_all) {
                Ok(thread) => self.trial = Some(thread),
                // Then the change is made at once, and waits for the encoders.
                Err(_) => return true,
            }
        }
        false
    }

    /// Makes the changes that have waited for the model, in their order.
    pub fn make_held(&mut self, service: &mut Service) {
        for asked in std::mem::take(&mut self.held) {
            self.make(asked, service);
        }
    }

    /// Writes back what was not written yet: before the file is read again, and at the end.
    pub fn flush(&mut self, service: &Service) {
        if !self.pending.is_empty() {
            self.remember(service);
        }
    }

    /// The file was read and is what holds.
    pub fn forget(&mut self) {
        self.pending.clear();
    }

    fn overlay(&mut self, name: &str, patch: &Object, service: &mut Service) -> Result<ChangeOutcome, ChangeRefusal> {
        let Some(known) = service.config_of(name) else { return Err(ChangeRefusal::NoStream(name.to_owned())) };
        let mut wanted = known.clone();
        let key = format!("stream[{name}].overlay");
        wanted.overlay = patched_overlay(&known.overlay, patch, &key).map_err(ChangeRefusal::Invalid)?;
        if service.view.model().is_none() && names_more(&wanted.overlay, &known.overlay) {
            return Err(ChangeRefusal::Loading(
                "hide and colors name its classes; everything else can be changed now".into(),
            ));
        }
        service.check_labels(std::slice::from_ref(&wanted)).map_err(ChangeRefusal::Invalid)?;
        if wanted.overlay != known.overlay {
            service.redraw(name, &wanted.overlay);
            self.pending.insert(name.to_owned());
        }
        if !self.pending.is_empty() && self.tried.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.remember(service);
        }
        Ok(ChangeOutcome { not_remembered: if self.pending.is_empty() { None } else { self.unwritable.clone() } })
    }

    /// Writes the overlays of changed streams to the file.
    fn remember(&mut self, service: &Service) {
        self.tried = Some(Instant::now());
        match self.write_overlays(service) {
            Ok(()) => {
                if self.unwritable.take().is_some() {
                    tracing::info!("{} can be written again", self.path.display());
                }
                self.pending.clear();
            }
            Err(problem) => {
                if self.unwritable.as_ref() != Some(&problem) {
                    tracing::warn!("changed overlays are drawn, and forgotten at the next start: {problem}");
                }
                self.unwritable = Some(problem);
            }
        }
    }

    fn write_overlays(&self, service: &Service) -> Result<(), String> {
        let invalid = |errors: ConfigErrors| {
            let first = errors.errors.first().map(ToString::to_string).unwrap_or_default();
            format!("{} is not valid now: {first}", self.path.display())
        };
        let before = config::read(&self.path).map_err(invalid)?;
        let file = config::parse(&before, &self.path).map_err(invalid)?;
        let mut text = before.clone();
        // A stream that was taken out of the file by hand is not put in again.
        for stream in file.streams.iter().filter(|stream| self.pending.contains(&stream.name)) {
            let Some(running) = service.config_of(&stream.name) else { continue };
            let overlay = overlay_difference(&stream.overlay, &running.overlay);
            if !overlay.is_empty() {
                let patch = Object::from_iter([("overlay".to_owned(), overlay.into())]);
                let edit = Edit::Change { stream: stream.name.clone(), patch };
                text = config::edit(&text, &edit).map_err(|error| error.to_string())?;
            }
        }
        if text == before {
            return Ok(());
        }
        config::parse(&text, &self.path).map_err(invalid)?;
        config::replace(&self.path, &before, &text).map(drop).map_err(|error| error.to_string())
    }

    fn stream(
        &mut self,
        edit: &Edit,
        host: Option<&SourceHost>,
        service: &mut Service,
    ) -> Result<ChangeOutcome, ChangeRefusal> {
        // What was changed a moment ago belongs into the file that is read now.
        self.flush(service);
        let before = config::read(&self.path).map_err(ChangeRefusal::File)?;
        let file = config::parse(&before, &self.path).map_err(ChangeRefusal::File)?;
        check(edit, &file)?;
        self.check_reserved(edit, &file).map_err(ChangeRefusal::Forbidden)?;
        let after = config::edit(&before, edit).map_err(|error| match error {
            EditError::NoStream(name) => ChangeRefusal::NoStream(name),
            EditError::Value(error) => ChangeRefusal::Invalid(vec![error]),
            EditError::Syntax(problem) => ChangeRefusal::Failed(problem),
        })?;
        let config = config::parse(&after, &self.path)
            .map_err(|errors| ChangeRefusal::Invalid(of_client(errors, edit, &file)))?;
        check_sources(edit, &file, &config, host).map_err(ChangeRefusal::Forbidden)?;
        service.check(&config).map_err(ChangeRefusal::Invalid)?;
        if after != before {
            let replaced = config::replace(&self.path, &before, &after);
            let replaced = replaced.map_err(|error| ChangeRefusal::Unwritable(error.to_string()))?;
            if replaced == Replaced::Closed {
                let file = self.path.display();
                tracing::warn!(
                    "{file} holds a password now, and everybody on this machine could read it: only its owner and group may from now on"
                );
            }
        }
        match service.reload(&config) {
            Ok(done) => {
                let problem = done.failed.iter().find(|(name, _)| concerns(edit, name));
                if let Some((name, problem)) = problem {
                    let problem = format!("stream {name} {problem}");
                    return Err(self.take_back(&before, &after, &file, service, problem));
                }
                self.forget();
                tell("streams changed by the API", &done);
                Ok(ChangeOutcome::default())
            }
            Err(error) => Err(self.take_back(&before, &after, &file, service, error.to_string())),
        }
    }

    /// What may not be set by the API at all. Before the new text is judged, which looks for the files that it names.
    fn check_reserved(&self, edit: &Edit, file: &Config) -> Result<(), Vec<ConfigError>> {
        let (Edit::Add(settings) | Edit::Change { patch: settings, .. }) = edit else { return Ok(()) };
        let key = edit.key();
        let base = config::folder_of(&self.path);
        keys_allowed(settings, &key)?;
        kind_allowed(settings, &key, file, &base)?;
        folder_allowed(settings, &key, file, &base, &self.state)
    }

    /// The file and the service as they were before a change that could not be applied.
    fn take_back(
        &self,
        before: &str,
        after: &str,
        file: &Config,
        service: &mut Service,
        problem: String,
    ) -> ChangeRefusal {
        tracing::error!("a change by the API could not be applied and is taken back: {problem}");
        if let Err(error) = config::replace(&self.path, after, before) {
            tracing::error!("the file keeps it: {error}");
        }
        if let Err(error) = service.reload(file) {
            tracing::error!("what ran before does not run again: {error}");
        }
        ChangeRefusal::Failed(problem)
    }
}

/// Whether `overlay` names classes that `known` does not.
fn names_more(overlay: &OverlayConfig, known: &OverlayConfig) -> bool {
    let names = |overlay: &OverlayConfig| -> BTreeSet<String> {
        let colored = overlay.colors.iter().map(|(name, _)| name);
        overlay.hide.iter().flatten().chain(colored).cloned().collect()
    };
    !names(overlay).is_subset(&names(known))
}

/// Whether the change is one of the stream of this name.
fn concerns(edit: &Edit, name: &str) -> bool {
    match edit {
        Edit::Add(settings) => settings.get("name").and_then(|name| name.as_str()) == Some(name),
        Edit::Change { stream, .. } | Edit::Remove { stream } => stream == name,
    }
}

/// What needs no look at the new file.
fn check(edit: &Edit, file: &Config) -> Result<(), ChangeRefusal> {
    let exists = |name: &str| file.streams.iter().any(|stream| stream.name == name);
    match edit {
        Edit::Add(settings) => {
            if let Some(name) = settings.get("name").and_then(|name| name.as_str()).filter(|name| exists(name)) {
                return Err(ChangeRefusal::Taken(name.to_owned()));
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
                    problem: "cannot be changed: it is part of addresses that are in use".into(),
                    help: Some("add a stream of the new name and remove this one".into()),
                };
                return Err(ChangeRefusal::Invalid(vec![error]));
            }
            let unknown = config::unknown_nulls(patch, "stream", &key);
            if unknown.is_empty() { Ok(()) } else { Err(ChangeRefusal::Invalid(unknown)) }
        }
        Edit::Remove { .. } if file.streams.len() == 1 => Err(ChangeRefusal::Last),
        Edit::Remove { .. } => Ok(()),
    }
}

/// Sources that the change has brought are those that the API may bring. A host that was not looked up before is, for a few
/// seconds at most.
fn check_sources(
    edit: &Edit,
    before: &Config,
    after: &Config,
    host: Option<&SourceHost>,
) -> Result<(), Vec<ConfigError>> {
    let known = |stream: &StreamConfig| before.streams.iter().any(|known| known.source.uri == stream.source.uri);
    let mut errors = Vec::new();
    for stream in after.streams.iter().filter(|stream| !known(stream)) {
        if let Err(problem) = before.server.api_sources.check_with(&stream.source.uri, host) {
            let key = format!("stream[{}].source", stream.name);
            errors.push(ConfigError { key, line: None, problem, help: None });
        }
    }
    if let Edit::Change { stream, patch } = edit {
        let source = |config: &Config| {
            config.streams.iter().find(|known| known.name == *stream).map(|known| known.source.clone())
        };
        if let (Some(before), Some(after)) = (source(before), source(after)) {
            errors
                .extend(passwords_stay(patch, &before, &after, &format!("stream[{stream}]")).err().unwrap_or_default());
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The text that was judged is one that the client does not see: it has neither its lines nor the place of a new stream in
/// it, which a stream without a valid name has for a key.
fn of_client(errors: ConfigErrors, edit: &Edit, before: &Config) -> Vec<ConfigError> {
    let place = format!("stream[{}]", before.streams.len());
    let key = |error: &ConfigError| match (edit, error.key.strip_prefix(&place)) {
        (Edit::Add(_), Some(rest)) => edit.key() + rest,
        _ => error.key.clone(),
    };
    errors.errors.into_iter().map(|error| ConfigError { key: key(&error), line: None, ..error }).collect()
}

/// Logs what a reload has done.
pub fn tell(what: &str, done: &ReloadReport) {
    let names = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    tracing::info!(
        "{what}: started {}; restarted {}; redrawn {}; stopped {}; untouched {}; model {}",
        names(&done.started),
        names(&done.restarted),
        names(&done.redrawn),
        names(&done.stopped),
        names(&done.untouched),
        if done.model { "to be exchanged" } else { "unchanged" }
    );
    for (stream, problem) in &done.failed {
        tracing::error!(stream, "{problem}");
    }
    if done.other_addresses {
        tracing::warn!("server.http, server.rtsp or server.tls is another one: that needs a restart");
    }
}
