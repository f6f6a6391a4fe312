//! Applies another configuration to the running service. The reload is planned first, so that nothing changes if the
//! configuration cannot be used, and then applied with a result for each stream.

use std::fmt;
use std::sync::Arc;

use super::models::{ModelsChange, PreparedModels};
use super::stopping::stop_all;
use super::stream_runner::StreamRunner;
use super::warn::warn_of_unused_names;
use super::{Service, ServiceError, SettingErrors, StreamStartError, check_encoders, history, run_on_thread};
use crate::config::{Config, DEFAULT_MODEL, StreamConfig, WebhookConfig};
use crate::view::StreamView;

/// The result of a reload, with names of streams.
#[derive(Debug, Default)]
pub struct ReloadReport {
    pub started: Vec<String>,
    pub restarted: Vec<String>,
    /// Only overlay, zones or rules have changed; they were not restarted.
    pub adjusted: Vec<String>,
    pub stopped: Vec<String>,
    pub untouched: Vec<String>,
    /// Streams that could not be started or restarted, with the reason. Each is retried after a pause.
    pub failed: Vec<(String, StreamStartError)>,
    /// The models that were added or removed, or change.
    pub models: ModelsChange,
    /// Addresses or certificate files have changed, which apply after a restart of the service.
    pub needs_restart: bool,
}

/// The action for a stream of the new configuration. Numbers are indices of running streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadAction {
    /// Its settings have not changed.
    Keep(usize),
    /// Only what applies to the next frame has changed: overlay, zones, rules.
    Adjust(usize),
    /// It is stopped and started with the new settings; its viewers stay connected.
    Restart(usize),
    Start,
}

/// The actions of a reload.
#[derive(Debug, PartialEq, Eq)]
struct ReloadPlan {
    /// For each stream of the new configuration, in its order.
    actions: Vec<ReloadAction>,
    /// Running streams that the new configuration does not have.
    stop: Vec<usize>,
}

impl ReloadPlan {
    fn new(running: &[&StreamConfig], wanted: &[StreamConfig]) -> ReloadPlan {
        let action = |stream: &StreamConfig| {
            let Some(at) = running.iter().position(|known| known.name == stream.name) else {
                return ReloadAction::Start;
            };
            match running[at] {
                known if known == stream => ReloadAction::Keep(at),
                known if known.differs_without_restart(stream) => ReloadAction::Adjust(at),
                _ => ReloadAction::Restart(at),
            }
        };
        let is_gone = |at: &usize| !wanted.iter().any(|stream| stream.name == running[*at].name);
        ReloadPlan { actions: wanted.iter().map(action).collect(), stop: (0..running.len()).filter(is_gone).collect() }
    }
}

impl ReloadReport {
    /// Logs the streams that could not be started, and whether a restart is needed.
    pub fn log_problems(&self) {
        for (stream, error) in &self.failed {
            tracing::error!(stream, "stream cannot be started: {error}");
        }
        if self.needs_restart {
            tracing::warn!("server.http, server.rtsp or server.tls changed: restart the service to apply this");
        }
    }
}

impl fmt::Display for ReloadReport {
    /// `started gate; restarted none; adjusted none; stopped none; untouched yard; model unchanged`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
        write!(
            f,
            "started {}; restarted {}; adjusted {}; stopped {}; untouched {}; ",
            names(&self.started),
            names(&self.restarted),
            names(&self.adjusted),
            names(&self.stopped),
            names(&self.untouched),
        )?;
        let ModelsChange { added, changed, removed } = &self.models;
        match (added.as_slice(), changed.as_slice(), removed.as_slice()) {
            ([], [], []) => f.write_str("model unchanged"),
            ([], [only], []) if only == DEFAULT_MODEL => f.write_str("model changes"),
            _ => write!(
                f,
                "models: added {}; loading new settings of {}; removed {}",
                names(added),
                names(changed),
                names(removed)
            ),
        }
    }
}

impl Service {
    /// Applies `config`. Streams whose settings have not changed continue. A stream that cannot be started does not prevent
    /// others from being started, and is retried after a pause.
    ///
    /// If the service is stopped meanwhile, streams are stopped and not started. `prepared` has the models that `config` adds.
    ///
    /// # Errors
    /// The configuration cannot be used; nothing has changed.
    pub fn reload(&mut self, config: &Config, prepared: PreparedModels) -> Result<ReloadReport, ServiceError> {
        self.check_with(config, &prepared).map_err(|errors| ServiceError::Settings(SettingErrors(errors)))?;
        // They have just been tested.
        self.log_encoders(check_encoders(&config.streams).unwrap_or_default());
        let current: Vec<&StreamConfig> = self.running.iter().map(|running| &running.config).collect();
        let plan = ReloadPlan::new(&current, &config.streams);
        let added = prepared.start(config, &self.models, &self.streams)?;
        // The last step that can fail.
        let needs_restart = self.set_server(&config.server)?;
        history::warn_of_changes(&config.history, &mut self.history_settings);
        let mut done = ReloadReport { needs_restart, ..ReloadReport::default() };
        self.set_mqtt(config.mqtt.as_ref());
        if config.streams.iter().any(|stream| stream.redact.is_some()) {
            super::redaction::protect_memory();
        }
        self.watch_redaction(&config.streams);
        *self.streams.lock() = config.streams.clone();
        done.models = self.models.apply(&config.models, added, &self.pools);
        self.view.set_models(self.models.views());
        self.apply(&plan, &config.streams, &mut done);
        self.end_unwanted_models(config);
        self.set_webhooks(&config.webhooks);
        // The labels of models that change are not known yet.
        let labels = self.known_labels().filter(|_| done.models.changed.is_empty());
        warn_of_unused_names(config, labels.as_deref());
        Ok(done)
    }

    /// Ends the models that the configuration does not have, whose streams have moved or ended. A model may be loading, so that is
    /// done on a thread.
    fn end_unwanted_models(&mut self, config: &Config) {
        let unwanted = self.models.take_unwanted(&config.models, &self.pools);
        if unwanted.is_empty() {
            return;
        }
        self.view.set_models(self.models.views());
        if let Err(error) = run_on_thread("model-end", move || drop(unwanted)) {
            // Then they have ended here.
            tracing::debug!("models ended on the run loop: {error}");
        }
    }

    /// Replaces the webhooks. One that cannot be started does not prevent the others from running.
    fn set_webhooks(&mut self, configs: &[WebhookConfig]) {
        if let Err(error) = self.webhooks.set(configs) {
            tracing::error!("webhook not started: {error}");
        }
        self.view.set_webhooks(self.webhooks.status());
    }

    /// Applies the plan to the streams.
    fn apply(&mut self, plan: &ReloadPlan, wanted: &[StreamConfig], done: &mut ReloadReport) {
        let views: Vec<Arc<StreamView>> = self.running.iter().map(StreamRunner::view).collect();
        let mut before: Vec<Option<StreamRunner>> = std::mem::take(&mut self.running).into_iter().map(Some).collect();
        for &at in &plan.stop {
            let name = &*views[at].status.name;
            done.stopped.push(name.to_owned());
            self.rtsp.remove(name);
            views[at].outputs.h264.remove_viewers();
            views[at].events.remove();
        }
        let restarted = plan.actions.iter().filter_map(|action| match action {
            ReloadAction::Restart(at) => Some(at),
            _ => None,
        });
        let ends = plan.stop.iter().chain(restarted).filter_map(|&at| before[at].take()).collect();
        // In parallel: otherwise the time limits of streams whose disk or camera hangs would add up.
        self.ending.extend(stop_all(ends, Some(&self.stop)).ending);
        for (stream, &action) in wanted.iter().zip(&plan.actions) {
            let prepared = match action {
                ReloadAction::Keep(at) | ReloadAction::Adjust(at) => before[at].take().map(|mut running| {
                    let list = if let ReloadAction::Adjust(_) = action {
                        running.adjust(stream);
                        &mut done.adjusted
                    } else {
                        &mut done.untouched
                    };
                    list.push(stream.name.clone());
                    running
                }),
                ReloadAction::Restart(at) => {
                    Some(StreamRunner::prepare(stream, Some(&views[at]), &self.rtsp, &self.view.events))
                }
                ReloadAction::Start => Some(StreamRunner::prepare(stream, None, &self.rtsp, &self.view.events)),
            };
            self.running.extend(prepared);
        }
        self.show_streams();
        let started = self.running.iter_mut().zip(&plan.actions);
        let started = started.filter(|(_, action)| matches!(action, ReloadAction::Restart(_) | ReloadAction::Start));
        if !self.stop.is_raised() {
            start_each(started, done, |running| running.start(&self.pools));
        }
    }
}

/// Starts streams and adds the result of each to `done`.
fn start_each<'a>(
    streams: impl Iterator<Item = (&'a mut StreamRunner, &'a ReloadAction)>,
    done: &mut ReloadReport,
    mut start: impl FnMut(&mut StreamRunner) -> Result<(), ServiceError>,
) {
    for (running, action) in streams {
        let name = running.config.name.clone();
        match running.start_or_retry(&mut start) {
            Ok(()) if matches!(action, ReloadAction::Restart(_)) => done.restarted.push(name),
            Ok(()) => done.started.push(name),
            Err(problem) => done.failed.push((name, problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::super::pools::Pools;
    use super::*;
    use crate::base::status::StreamState;
    use crate::config::{Legend, SourceSpec, defaults_stream};
    use crate::publish::rtsp::RtspServer;
    use crate::segment::pool::Pool;

    /// Guards against hanging.
    const DEADLINE: Duration = Duration::from_secs(180);

    fn stream(name: &str) -> StreamConfig {
        defaults_stream(name, SourceSpec::parse("test://black?width=64&height=48&fps=5", Path::new("/")).unwrap())
    }

    #[test]
    fn the_plan_has_one_action_for_each_stream() {
        let running = [stream("same"), stream("drawn"), stream("changed"), stream("gone")];
        let mut wanted = [stream("new"), stream("changed"), stream("drawn"), stream("same")];
        wanted[1].max_mask_age = Duration::from_secs(7);
        wanted[2].overlay.legend = Legend::Off;
        let plan = ReloadPlan::new(&running.iter().collect::<Vec<_>>(), &wanted);
        let actions =
            vec![ReloadAction::Start, ReloadAction::Restart(2), ReloadAction::Adjust(1), ReloadAction::Keep(0)];
        assert_eq!(plan, ReloadPlan { actions, stop: vec![3] });
        assert_eq!(ReloadPlan::new(&[], &[]), ReloadPlan { actions: Vec::new(), stop: Vec::new() });
    }

    /// The first of three cannot be started, as if no thread were available.
    #[test]
    fn a_stream_that_cannot_be_started_is_retried_and_does_not_prevent_others() {
        crate::gst::init().unwrap();
        let rtsp = RtspServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let pools = Pools::default();
        pools.add("default", Arc::new(Pool::idle(2).unwrap()));
        let mut running: Vec<StreamRunner> = ["first", "second", "third"]
            .iter()
            .map(|name| StreamRunner::prepare(&stream(name), None, &rtsp, &Arc::default()))
            .collect();
        let actions = [ReloadAction::Start, ReloadAction::Restart(0), ReloadAction::Start];
        let mut done = ReloadReport::default();
        let mut attempts = 0;
        let no_thread = || ServiceError::Thread { thread: "capture", source: ErrorKind::WouldBlock.into() };
        start_each(running.iter_mut().zip(&actions), &mut done, |running| {
            attempts += 1;
            if attempts == 1 { Err(no_thread()) } else { running.start(&pools) }
        });
        let started: Vec<bool> = running.iter().map(StreamRunner::has_begun).collect();
        assert_eq!(started, [false, true, true]);
        assert_eq!((done.started, done.restarted), (vec!["third".to_owned()], vec!["second".to_owned()]));
        let [(name, error)] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
        assert_eq!((name.as_str(), error.pause), ("first", Duration::from_secs(1)));
        assert!(matches!(*error.source, ServiceError::Thread { thread: "capture", .. }), "{error}");
        let condition = running[0].view().status.condition();
        assert_eq!(condition.state, StreamState::Offline);
        assert_eq!(condition.reason, Some(error.to_string()));
        // As in the service's run loop.
        let until = Instant::now() + DEADLINE;
        while !running[0].has_begun() {
            assert!(Instant::now() < until, "it is not retried");
            running[0].restart_if_dead(&pools);
            std::thread::yield_now();
        }
        let unstopped = stop_all(running, None);
        assert_eq!((unstopped.hung, unstopped.ending.len()), (Vec::<String>::new(), 0));
    }
}
