//! Makes a running service what another configuration says: planned first, so that nothing has changed when the
//! configuration cannot be used, then applied with a result for each stream.

use std::sync::{Arc, PoisonError};

use super::stopping::stop_all;
use super::stream_runner::StreamRunner;
use super::{Service, ServiceError, check_encoders, lines};
use crate::config::{Config, StreamConfig};
use crate::view::StreamView;

/// What a reload has done, by the streams' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    pub started: Vec<String>,
    pub restarted: Vec<String>,
    /// Only their overlay has changed, and they went on.
    pub redrawn: Vec<String>,
    pub stopped: Vec<String>,
    pub untouched: Vec<String>,
    /// Streams that could not be started or restarted, and why. Each is tried again after a pause.
    pub failed: Vec<(String, String)>,
    pub model: bool,
    /// The configuration has other addresses, which are only listened on after a restart.
    pub other_addresses: bool,
}

/// What becomes of a stream of the new configuration. Numbers are places among the streams that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadAction {
    /// Its settings are the same.
    Keep(usize),
    /// Only its overlay has changed.
    Redraw(usize),
    /// It is stopped and started with the new settings; its viewers stay.
    Restart(usize),
    Start,
}

/// What is to be done, before any of it is.
#[derive(Debug, PartialEq, Eq)]
struct ReloadPlan {
    /// For each stream of the new configuration, in its order.
    fates: Vec<ReloadAction>,
    /// Streams that the new configuration does not have.
    stop: Vec<usize>,
}

impl ReloadPlan {
    fn new(running: &[&StreamConfig], wanted: &[StreamConfig]) -> ReloadPlan {
        let fate = |stream: &StreamConfig| {
            let Some(at) = running.iter().position(|known| known.name == stream.name) else {
                return ReloadAction::Start;
            };
            match running[at] {
                known if known == stream => ReloadAction::Keep(at),
                known if known.differs_by_overlay(stream) => ReloadAction::Redraw(at),
                _ => ReloadAction::Restart(at),
            }
        };
        let is_gone = |at: &usize| !wanted.iter().any(|stream| stream.name == running[*at].name);
        ReloadPlan { fates: wanted.iter().map(fate).collect(), stop: (0..running.len()).filter(is_gone).collect() }
    }
}

impl Service {
    /// Makes the service what `config` says. Streams whose settings are the same continue undisturbed. A stream that
    /// cannot be started keeps no other from being started, and is tried again after a pause.
    ///
    /// While the service stops, streams are stopped and not started any more.
    ///
    /// # Errors
    /// What is wrong with the configuration; then nothing has changed.
    pub fn reload(&mut self, config: &Config) -> Result<ReloadReport, ServiceError> {
        self.check(config).map_err(|errors| ServiceError::Configuration(lines(&errors)))?;
        // They have just been tried.
        self.tell_encoders(check_encoders(&config.streams).unwrap_or_default());
        let known: Vec<&StreamConfig> = self.running.iter().map(|running| &running.config).collect();
        let plan = ReloadPlan::new(&known, &config.streams);
        // The last step that can fail.
        let other_addresses = self.set_server(&config.server)?;
        let mut done = ReloadReport { model: config.model != self.model, other_addresses, ..ReloadReport::default() };
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = config.streams.clone();
        if let Some(models) = self.models.as_ref().filter(|_| done.model) {
            models.set(config.model.clone());
            self.model = config.model.clone();
        }
        self.apply(&plan, &config.streams, &mut done);
        Ok(done)
    }

    /// Does what is planned for the streams.
    fn apply(&mut self, plan: &ReloadPlan, wanted: &[StreamConfig], done: &mut ReloadReport) {
        let views: Vec<Arc<StreamView>> = self.running.iter().map(StreamRunner::view).collect();
        let mut before: Vec<Option<StreamRunner>> = std::mem::take(&mut self.running).into_iter().map(Some).collect();
        for &at in &plan.stop {
            let name = &*views[at].status.name;
            done.stopped.push(name.to_owned());
            self.rtsp.remove(name);
            views[at].outputs.h264.close();
        }
        let restarted = plan.fates.iter().filter_map(|fate| match fate {
            ReloadAction::Restart(at) => Some(at),
            _ => None,
        });
        let ends = plan.stop.iter().chain(restarted).filter_map(|&at| before[at].take()).collect();
        // Side by side: one after the other, streams whose disk or camera hangs would add up their time limits.
        self.ending.extend(stop_all(ends, Some(&self.stop)).ending);
        for (stream, &fate) in wanted.iter().zip(&plan.fates) {
            let prepared = match fate {
                ReloadAction::Keep(at) | ReloadAction::Redraw(at) => before[at].take().map(|mut running| {
                    let list = if let ReloadAction::Redraw(_) = fate {
                        running.redraw(&stream.overlay);
                        &mut done.redrawn
                    } else {
                        &mut done.untouched
                    };
                    list.push(stream.name.clone());
                    running
                }),
                ReloadAction::Restart(at) => Some(StreamRunner::prepare(stream, Some(&views[at]), &self.rtsp)),
                ReloadAction::Start => Some(StreamRunner::prepare(stream, None, &self.rtsp)),
            };
            self.running.extend(prepared);
        }
        self.show_streams();
        let fresh = self.running.iter_mut().zip(&plan.fates);
        let fresh = fresh.filter(|(_, fate)| matches!(fate, ReloadAction::Restart(_) | ReloadAction::Start));
        if !self.stop.is_raised() {
            start_each(fresh, done, |running| running.start(&self.pool));
        }
    }
}

/// Starts streams, and enters in `done` what became of each.
fn start_each<'a>(
    streams: impl Iterator<Item = (&'a mut StreamRunner, &'a ReloadAction)>,
    done: &mut ReloadReport,
    mut start: impl FnMut(&mut StreamRunner) -> Result<(), ServiceError>,
) {
    for (running, fate) in streams {
        let name = running.config.name.clone();
        match running.start_or_retry(&mut start) {
            Ok(()) if matches!(fate, ReloadAction::Restart(_)) => done.restarted.push(name),
            Ok(()) => done.started.push(name),
            Err(problem) => done.failed.push((name, problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::base::status::StreamState;
    use crate::config::{SourceSpec, defaults_stream};
    use crate::publish::rtsp::RtspServer;
    use crate::segment::pool::Pool;

    /// Guards against hanging.
    const DEADLINE: Duration = Duration::from_secs(180);

    fn stream(name: &str) -> StreamConfig {
        defaults_stream(name, SourceSpec::parse("test://black?width=64&height=48&fps=5", Path::new("/")).unwrap())
    }

    #[test]
    fn every_stream_has_one_place_in_the_plan() {
        let running = [stream("same"), stream("drawn"), stream("changed"), stream("gone")];
        let mut wanted = [stream("new"), stream("changed"), stream("drawn"), stream("same")];
        wanted[1].max_mask_age = Duration::from_secs(7);
        wanted[2].overlay.legend = false;
        let plan = ReloadPlan::new(&running.iter().collect::<Vec<_>>(), &wanted);
        let fates = vec![ReloadAction::Start, ReloadAction::Restart(2), ReloadAction::Redraw(1), ReloadAction::Keep(0)];
        assert_eq!(plan, ReloadPlan { fates, stop: vec![3] });
        assert_eq!(ReloadPlan::new(&[], &[]), ReloadPlan { fates: Vec::new(), stop: Vec::new() });
    }

    /// The first of three cannot be started, as when there is no thread to be had.
    #[test]
    fn a_stream_that_cannot_be_started_keeps_no_other_from_it_and_is_tried_again() {
        crate::gst::init().unwrap();
        let rtsp = RtspServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let pool = Pool::idle(2).unwrap();
        let mut running: Vec<StreamRunner> =
            ["first", "second", "third"].iter().map(|name| StreamRunner::prepare(&stream(name), None, &rtsp)).collect();
        let fates = [ReloadAction::Start, ReloadAction::Restart(0), ReloadAction::Start];
        let mut done = ReloadReport::default();
        let mut attempts = 0;
        start_each(running.iter_mut().zip(&fates), &mut done, |running| {
            attempts += 1;
            if attempts == 1 { Err(ServiceError::Runtime("no thread".into())) } else { running.start(&pool) }
        });
        let begun: Vec<bool> = running.iter().map(StreamRunner::has_begun).collect();
        assert_eq!(begun, [false, true, true]);
        assert_eq!((done.started, done.restarted), (vec!["third".to_owned()], vec!["second".to_owned()]));
        assert_eq!(done.failed, [("first".to_owned(), "cannot be started: no thread; next try in 1 s".to_owned())]);
        let condition = running[0].view().status.condition();
        assert_eq!(condition.state, StreamState::Offline);
        assert!(condition.reason.unwrap().contains("no thread"));
        // As the service's loop does.
        let until = Instant::now() + DEADLINE;
        while !running[0].has_begun() {
            assert!(Instant::now() < until, "it is never tried again");
            running[0].restart_if_dead(&pool);
            std::thread::yield_now();
        }
        let unstopped = stop_all(running, None);
        assert_eq!((unstopped.hung, unstopped.ending.len()), (Vec::<String>::new(), 0));
    }
}
