//! Every path of the API's own description on a service that has data behind each of them: strangers get nothing, a viewer gets
//! the data and changes nothing. A path that is added later fails here until a viewer can read it.

use serde_json::{Value, json};

use crate::common::live;
use crate::common::program::until;
use crate::common::service::Service;
use crate::fixture::{Answer, Fixture, WALL, agent, basic, bearer, send};
use crate::http::{PUBLIC, document, is_for_operators, routes};

const ZONE: &str = "\"><script>loading-bay";
const RULE: &str = "blocked";

/// A path of the API that a viewer cannot read here: the share does not change after the start of the event.
const WITHOUT_DATA: &str = "/api/v1/events/{id}/peak.jpg";

/// The headers with which a client asks for a WebSocket.
const WEBSOCKET: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A service with users, a stream with a zone, a rule, an event that lasts, its snapshot, a recording and a history.
struct Watched {
    fixture: Fixture,
    service: Service,
    agent: ureq::Agent,
    /// The event, from the API.
    event: Value,
}

impl Watched {
    fn start() -> Self {
        let fixture = Fixture::new();
        let stream = format!(
            "[history]\ndir = \"state\"\n[[stream]]\nname = \"gate\"\nsource = \"test://red?width=320&height=180&fps=10\"\n\
             [stream.record]\ndir = \"rec\"\n[[stream.zone]]\nname = '{ZONE}'\npolygon = [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]\n\
             [[stream.rule]]\nname = \"{RULE}\"\nclasses = [\"red\"]\nzone = '{ZONE}'\nfor = \"0s\"\n"
        );
        let mut service = Service::run(&fixture.config("", &stream), &[]);
        service.program.wait_for_message("ready");
        let (agent, operator) = (agent(None), bearer(&fixture.operator));
        let event = until("the event has a snapshot and a recording", || {
            let url = format!("{}api/v1/events", service.page);
            let found = send(&agent, "GET", &url, &[("authorization", &operator)], None).json().get(0)?.clone();
            (found["snapshots"]["start"].is_string() && found["recording"].is_object()).then_some(found)
        });
        Watched { fixture, service, agent, event }
    }

    fn send(&self, method: &str, route: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let url = format!("{}{route}", self.service.page.trim_end_matches('/'));
        send(&self.agent, method, &url, headers, body)
    }

    fn text(&self, pointer: &str) -> &str {
        self.event.pointer(pointer).unwrap().as_str().unwrap()
    }

    /// A path of the description with values that exist.
    fn route(&self, path: &str) -> String {
        let name = if path.starts_with("/api/v1/models/") { "default" } else { "gate" };
        let route = path.replace("{name}", name).replace("{file}", self.text("/recording/name"));
        let route = route.replace("/whep/gate/{id}", "/whep/gate/7").replace("{id}", self.text("/id"));
        let route = route.replace("{candidate}", "yard");
        assert!(!route.contains('{'), "{path}: no value for a parameter");
        route
    }

    /// The operations of the description: method and path.
    fn operations(&self) -> Vec<(String, String)> {
        let document = document(&self.service.page, &self.agent, &self.fixture.operator);
        let of_path = |(path, item): (&String, &Value)| {
            let methods =
                item.as_object().unwrap().keys().filter(|key| !matches!(key.as_str(), "parameters" | "summary"));
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        document["paths"].as_object().unwrap().iter().flat_map(of_path).collect()
    }

    /// What clients must not change.
    fn settings(&self) -> Value {
        let operator = bearer(&self.fixture.operator);
        let get = |route: &str| self.send("GET", route, &[("authorization", &operator)], None).json();
        let recordings: Vec<Value> = get("/api/v1/streams/gate/recordings").as_array().unwrap().clone();
        let file = self.text("/recording/name");
        json!({
            "streams": get("/api/v1/streams").as_array().unwrap().iter().map(|stream| stream["config"].clone()).collect::<Vec<_>>(),
            "overlay": get("/api/v1/streams/gate/overlay"),
            "recording": recordings.iter().any(|recording| recording["name"] == file),
            "model": get("/api/v1/model")["path"],
            "event": get(&self.route("/api/v1/events/{id}"))["id"],
            "file": std::fs::read_to_string(self.fixture.folder.path().join("maskcast.toml")).unwrap(),
        })
    }
}

fn is_session(route: &str) -> bool {
    route == "/api/v1/session"
}

#[test]
fn strangers_get_nothing_by_any_path() {
    let watched = Watched::start();
    let before = watched.settings();
    let token_as_cookie = format!("maskcast={}", watched.fixture.viewer);
    let own_name = bearer("gate");
    let strangers: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", "Bearer maskcast_wrong")],
        &[("authorization", &own_name)],
        &[("cookie", "maskcast=00000000000000000000000000000000")],
        // A token is not a session.
        &[("cookie", &token_as_cookie)],
    ];
    let secrets = ["loading-bay", RULE, watched.text("/id"), watched.text("/recording/name"), "gate"];
    let check = |answer: &Answer, place: &str| {
        assert_eq!((answer.status, answer.header("content-type")), (401, "application/problem+json"), "{place}");
        let told = secrets.iter().find(|secret| answer.body.contains(**secret));
        assert_eq!(told, None, "{place}: {}", answer.body);
    };
    let described = watched.operations();
    let reads = |path: &str| described.iter().any(|(method, known)| method == "GET" && known == path);
    for path in
        ["/api/v1/events", "/api/v1/events/live", "/api/v1/streams/{name}/masks", "/api/v1/streams/{name}/history"]
    {
        assert!(reads(path), "{path}: {described:?}");
    }
    // What is not in the description: metrics, MJPEG, the pages.
    let others = routes(&watched.service.page, &watched.agent, &watched.fixture.operator).into_iter();
    let others = others.filter(|route| !PUBLIC.contains(&route.as_str())).map(|route| ("GET".to_owned(), route));
    let mut asked = 0;
    for (method, path) in described.iter().cloned().chain(others) {
        let route = watched.route(&path);
        if is_session(&route) && method != "GET" {
            continue;
        }
        let body = (method != "GET" && method != "DELETE").then(|| json!({ "zone": [], "rule": [] }));
        for credentials in strangers {
            let place = format!("{method} {route} {credentials:?}");
            check(&watched.send(&method, &route, credentials, body.as_ref()), &place);
            if method == "GET" {
                let live = [&[("accept", "text/event-stream")], credentials].concat();
                check(&watched.send("GET", &route, &live, None), &place);
                check(&watched.send("GET", &route, &[&WEBSOCKET, credentials].concat(), None), &place);
                assert_eq!(watched.send("HEAD", &route, credentials, None).status, 401, "{place}");
            }
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked} requests");
    // Attempts with passwords are limited, so that each path cannot be tried.
    check(&watched.send("GET", "/api/v1/events", &[("authorization", &basic("wall", "wrong"))], None), "password");
    assert_eq!(watched.send("GET", "/api/v1/events", &[("authorization", &basic("wall", WALL))], None).status, 200);
    assert_eq!(watched.settings(), before, "nothing has changed");
}

#[test]
fn a_viewer_reads_everything_and_changes_nothing() {
    let watched = Watched::start();
    let before = watched.settings();
    let viewer = bearer(&watched.fixture.viewer);
    let authorization = ("authorization", viewer.as_str());
    for (method, path) in watched.operations() {
        let route = watched.route(&path);
        if is_session(&route) || route.starts_with("/whep/") {
            continue;
        }
        if method != "GET" || is_for_operators(&route) {
            let has_body = !matches!(method.as_str(), "GET" | "DELETE");
            let body = has_body.then(|| json!({ "zone": [], "rule": [] }));
            let answer = watched.send(&method, &route, &[authorization], body.as_ref());
            assert_eq!(answer.status, 403, "{method} {route}: {}", answer.body);
            assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {route}");
            continue;
        }
        if is_live(&path) {
            let mut messages = live::ServerSentEvents::connect(&watched.service.page, &route[1..], &[authorization]);
            assert_eq!(messages.status, 200, "{route}");
            if path.ends_with("/masks") {
                assert_eq!(messages.next().unwrap()["zones"][ZONE]["red"], 1.0, "{route}");
            }
            continue;
        }
        let answer = watched.send("GET", &route, &[authorization], None);
        let expected = if path == WITHOUT_DATA { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{route}: {}", answer.body);
        assert!(!answer.body.is_empty(), "{route}");
    }
    let get = |route: &str| watched.send("GET", route, &[authorization], None);
    assert_eq!(get("/api/v1/events").json()[0]["id"], watched.event["id"]);
    assert_eq!(get("/api/v1/streams/gate").json()["zones"][0]["name"], ZONE);
    assert!(get("/metrics").body.contains("zone=\"\\\"><script>loading-bay\""));
    let socket = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let path = "api/v1/streams/gate/masks";
        let mut masks = live::open(&watched.service.page, path, &[("authorization", &viewer)]).await.unwrap();
        live::next(&mut masks).await.unwrap()
    });
    assert_eq!(socket["stream"], "gate");
    assert_eq!(watched.settings(), before, "nothing has changed");
}

fn is_live(path: &str) -> bool {
    path.ends_with("/masks") || path.ends_with("/live")
}
