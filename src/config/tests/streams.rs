//! `[[stream]]`, without its recordings.

use super::*;

#[test]
fn tiles_are_columns_and_rows() {
    for (written, tiles) in [("1x1", (1, 1)), ("2x3", (2, 3)), ("4x4", (4, 4))] {
        let stream = stream(&format!("source = \"test://\"\ntiles = \"{written}\""));
        let found = crate::frame::Tiles::from(stream.tiles);
        assert_eq!((found.columns, found.rows), tiles);
    }
    for (written, problem) in [
        ("\"5x1\"", "5x1 is not from 1x1 to 4x4"),
        ("\"0x2\"", "0x2 is not from 1x1 to 4x4"),
        ("\"2\"", "\"2\" is not columns and rows"),
        ("\"+2x2\"", "\"+2x2\" is not columns and rows"),
        ("2", "must be a string"),
    ] {
        let error = only(read_stream(&format!("source = \"test://\"\ntiles = {written}")));
        assert!(error.starts_with(&format!("stream[gate].tiles: {problem}")), "{error}");
    }
    let redacted = "source = \"test://\"\ntiles = \"2x2\"\n[stream.redact]\nclasses = [\"person\"]";
    let error = only(read_stream(redacted));
    assert!(error.starts_with("stream[gate].tiles: is not possible with [stream.redact]"), "{error}");
}

#[test]
fn a_crop_is_four_numbers_inside_of_the_frame() {
    for written in ["[0, 0, 1, 1]", "[0.5, 0, 0.5, 0.25]", "[0.7, 0.1, 0.3, 0.9]"] {
        let crop = crate::frame::Crop::from(stream(&format!("source = \"test://\"\ncrop = {written}")).crop);
        let numbers: Vec<f64> = serde_json::from_str(written).unwrap();
        assert_eq!([crop.x, crop.y, crop.width, crop.height], *numbers);
    }
    assert!(crate::frame::Crop::from(stream("source = \"test://\"").crop).is_whole());
    for (written, key, problem) in [
        ("\"0,0,1,1\"", "", "must be an array, not a string"),
        ("[0, 0, 1]", "", "has 3 numbers, not 4"),
        ("[0, 0, 1, 1, 1]", "", "has 5 numbers, not 4"),
        ("[0, 0, 1, \"1\"]", "[3]", "must be a number, not a string"),
        ("[0, -0.1, 1, 1]", "[1]", "-0.1 is not between 0 and 1"),
        ("[0, 0, nan, 1]", "[2]", "NaN is not between 0 and 1"),
        ("[0, 0, 0.2, 1]", "", "width = 0.2 is less than 0.25"),
        ("[0, 0, 1, 0]", "", "height = 0 is less than 0.25"),
        (
            "[0.6, 0, 0.5, 1]",
            "",
            "x + width = 0.6 + 0.5 is more than 1: the crop extends beyond the right edge of the frame",
        ),
        (
            "[0, 0.76, 1, 0.25]",
            "",
            "y + height = 0.76 + 0.25 is more than 1: the crop extends beyond the bottom edge of the frame",
        ),
    ] {
        let error = only(read_stream(&format!("source = \"test://\"\ncrop = {written}")));
        assert!(error.starts_with(&format!("stream[gate].crop{key}: {problem} (help: write [x, y, ")), "{error}");
    }
    let redacted = "source = \"test://\"\ncrop = [0, 0, 0.5, 1]\n[stream.redact]\nclasses = [\"person\"]";
    let error = only(read_stream(redacted));
    assert!(error.starts_with("stream[gate].crop: is not possible with [stream.redact] (help: remove crop"), "{error}");
    assert_eq!(CropArea::parse("0.5, 0,0.5,1").unwrap().to_string(), "[0.5, 0, 0.5, 1]");
    assert!(CropArea::parse("0.5;0").unwrap_err().contains("four numbers"));
    assert!(CropArea::parse("0,0,NaN,1").unwrap_err().contains("NaN is not between 0 and 1"));
}

#[test]
fn a_zone_outside_of_the_crop_is_an_error() {
    let text = |crop: &str| {
        format!(
            "source = \"test://\"\n{crop}\n\
             [[stream.zone]]\nname = \"Yard\"\npolygon = [[0.25, 0], [0.75, 0], [0.75, 1], [0.25, 1]]\n\
             [[stream.zone]]\nname = \"Street\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
             [stream.record]\ndir = \"/srv\"\n\
             [[stream.record.event]]\nname = \"visit\"\nclasses = [\"car\"]\nzone = [[0, 0], [0.4, 0], [0.4, 1]]\n"
        )
    };
    stream(&text(""));
    let errors = read_stream(&text("crop = [0.5, 0, 0.5, 1]")).unwrap_err();
    let found: Vec<String> = errors.errors.iter().map(|error| format!("{}: {}", error.key, error.problem)).collect();
    assert_eq!(
        found,
        [
            "stream[gate].zone[1].polygon: the zone \"Street\" has less than 0.01 % of the frame inside of crop = [0.5, 0, 0.5, 1]",
            "stream[gate].record.event[0].zone: the zone of the event \"visit\" has less than 0.01 % of the frame inside of crop = [0.5, 0, 0.5, 1]",
        ]
    );
    stream(&text("crop = [0.25, 0, 0.75, 1]"));
}

#[test]
fn a_mask_rate_is_a_word_or_a_number() {
    for (written, rate) in
        [("\"auto\"", MaskRate::Auto), ("5", MaskRate::PerSecond(5.0)), ("0.1", MaskRate::PerSecond(0.1))]
    {
        let stream = stream(&format!("source = \"test://\"\nmask_rate = {written}"));
        assert_eq!(stream.mask_rate, rate, "{written}");
    }
    for (written, problem) in [
        ("\"often\"", "\"often\" is neither \"auto\" nor a number"),
        ("0", "0 is not between 0.1 and 120"),
        ("true", "must be \"auto\" or a number, not a boolean"),
    ] {
        let error = only(read_stream(&format!("source = \"test://\"\nmask_rate = {written}")));
        assert!(error.starts_with(&format!("stream[gate].mask_rate: {problem}")), "{error}");
    }
    let error = only(read_stream("source = \"test://\"\nshow = \"matched\"\nmask_rate = 5"));
    assert!(error.starts_with("stream[gate].mask_rate: is not possible with show"), "{error}");
}

#[test]
fn no_streams() {
    let dir = folder();
    for text in ["model.path = \"m.onnx\"", "model.path = \"m.onnx\"\nstream = []"] {
        assert!(only(read(dir.path(), text)).starts_with("stream: there is none (help: write [[stream]]"));
    }
    let single = "model.path = \"m.onnx\"\n[stream]\nname = \"a\"\nsource = \"test://\"";
    assert_eq!(
        only(read(dir.path(), single)),
        "stream: is written [stream] (help: write [[stream]], with two brackets)"
    );
    assert!(
        only(read(dir.path(), "model.path = \"m.onnx\"\nstream = 5")).starts_with("stream: must be an array of tables")
    );
}

#[test]
fn a_stream_name_has_64_plain_characters_at_most() {
    let dir = folder();
    let named = |name: &str| {
        read(dir.path(), &format!("model.path = \"m.onnx\"\n[[stream]]\nname = \"{name}\"\nsource = \"test://\""))
    };
    assert!(named(&"a".repeat(64)).is_ok());
    assert_eq!(only(named(&"a".repeat(65))), "stream[0].name: has 65 characters, more than 64");
    assert_eq!(only(named("")), "stream[0].name: must not be empty");
    assert!(only(named("tür")).starts_with("stream[0].name: \"tür\" has other characters"));
}

#[test]
fn a_duration_has_a_unit_and_a_range() {
    for (written, millis) in [("\"500ms\"", 500), ("0.05", 50), ("\"1m\"", 60_000), ("2", 2000)] {
        let stream = stream(&format!("source = \"test://\"\nmax_mask_age = {written}"));
        assert_eq!(stream.max_mask_age, Duration::from_millis(millis), "{written}");
    }
    for (written, problem) in [
        ("\"20ms\"", "20ms is not between 50ms and 1m"),
        ("-1", "-1 s is not between 50ms and 1m"),
        ("inf", "inf s is not between 50ms and 1m"),
        ("\"500\"", "\"500\" is not a duration (help: write \"500ms\", \"3s\", \"1m\" or a number of seconds)"),
    ] {
        let error = only(read_stream(&format!("source = \"test://\"\nmax_mask_age = {written}")));
        assert_eq!(error, format!("stream[gate].max_mask_age: {problem}"));
    }
}

#[test]
fn a_latency_that_no_frame_keeps_is_refused() {
    assert_eq!(stream("source = \"rtsp://cam/x\"").max_latency, Duration::from_secs(1));
    let error = only(read_stream("source = \"rtsp://cam/x\"\nmax_latency = \"50ms\""));
    assert_eq!(error, "stream[gate].max_latency: 50ms is not between 200ms and 1m");
}

#[test]
fn settings_fit_their_source() {
    for (source, setting, key) in [
        ("rtsp://cam/x", "loop = true", "loop"),
        ("test://", "speed = \"max\"", "speed"),
        ("clip.avi", "transport = \"tcp\"", "transport"),
        ("http://cam/x", "latency = \"1s\"", "latency"),
        ("srt://cam:1", "user = \"viewer\"", "user"),
        ("rtsp://cam/x", "tls_fingerprint = \"FINGERPRINT\"", "tls_fingerprint"),
        ("https://cam/x", "tls_fingerprint = \"FINGERPRINT\"", "tls_fingerprint"),
        ("http://cam/x", "tls_ca = \"pw\"", "tls_ca"),
    ] {
        let setting = setting.replace("FINGERPRINT", &"ab".repeat(32));
        let error = only(read_stream(&format!("source = \"{source}\"\n{setting}")));
        assert!(error.starts_with(&format!("stream[gate].{key}: has no meaning for this source")), "{error}");
    }
}

#[test]
fn a_certificate_is_trusted_by_fingerprint_or_authority() {
    let fingerprint = ["AB"; 32].join(":");
    let both = format!("source = \"rtsps://cam/x\"\ntls_fingerprint = \"{fingerprint}\"\ntls_ca = \"pw\"");
    let source = stream(&both).source;
    assert_eq!(source.tls_fingerprint.unwrap().to_string(), fingerprint);
    assert!(source.tls_ca.unwrap().ends_with("pw"));
    assert!(stream("source = \"https://cam/x\"\ntls_ca = \"pw\"").source.tls_ca.is_some());
    for (setting, error) in [
        ("tls_fingerprint = \"AB:CD\"", "tls_fingerprint: is not a SHA-256 fingerprint"),
        ("tls_ca = \"absent.pem\"", "tls_ca: no such file"),
    ] {
        let found = only(read_stream(&format!("source = \"rtsps://cam/x\"\n{setting}")));
        assert!(found.starts_with(&format!("stream[gate].{error}")), "{found}");
    }
}

#[test]
fn credentials_are_in_the_url_or_in_keys() {
    let read = |text: &str| stream(text).source.credentials.unwrap();
    let expected = |password: &str| Credentials { user: "viewer".into(), password: Secret::new(password) };
    let user = "source = \"rtsp://cam/x\"\nuser = \"viewer\"\n";
    assert_eq!(read(&format!("{user}password_file = \"pw\"")), expected("hunter2"));
    assert_eq!(read(&format!("{user}password_file = \"crlf\"")), expected(" hunter2 "));
    assert_eq!(read(&format!("{user}password_env = \"GATE_PASSWORD\"")), expected("hunter2"));
    assert_eq!(read(user), expected(""));
    assert_eq!(read("source = \"rtsp://viewer:a%20b@cam/x\""), expected("a b"));
    assert_eq!(read("source = \"http://viewer@cam/x\"\npassword_file = \"pw\""), expected("hunter2"));

    for (text, error) in [
        ("user = \"viewer\"\npassword_file = \"absent\"", "password_file: no such file"),
        ("user = \"viewer\"\npassword_file = \"hunter2\"", "password_file: no such file"),
        ("user = \"viewer:hunter2\"", "user: contains a colon"),
        ("user = \"viewer\"\npassword_file = \"empty\"", "password_file: the file is empty"),
        ("user = \"viewer\"\npassword_file = \"blank\"", "password_file: the first line of the file is empty"),
        ("user = \"viewer\"\npassword_file = \"/dev/zero\"", "password_file: is not a password"),
        ("user = \"viewer\"\npassword_env = \"hunter2\"", "password_env: there is no environment variable"),
        ("user = \"viewer\"\npassword_env = \"BLANK\"", "password_env: the environment variable of this name is empty"),
        ("user = \"viewer\"\npassword_file = \"pw\"\npassword_env = \"GATE_PASSWORD\"", "password_env: password_file"),
        ("password_file = \"pw\"", "password_file: there is no user for this password"),
    ] {
        let error_found = only(read_stream(&format!("source = \"rtsp://cam/x\"\n{text}")));
        assert!(error_found.starts_with(&format!("stream[gate].{error}")), "{error_found}");
        assert!(!error_found.contains("hunter2"), "{error_found}");
    }
    let twice = read_stream("source = \"rtsp://a:b@cam/x\"\nuser = \"viewer\"\npassword_file = \"pw\"").unwrap_err();
    let keys: Vec<&str> = twice.errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["stream[gate].user", "stream[gate].password_file"]);
}

#[test]
fn an_encoder_is_chosen_by_name() {
    for (word, encoder) in
        [("auto", EncoderChoice::Auto), ("vaapi", EncoderChoice::Vaapi), ("v4l2", EncoderChoice::V4l2)]
    {
        let stream = stream(&format!("source = \"test://\"\nencode.encoder = \"{word}\""));
        assert_eq!(stream.encode.encoder, encoder);
    }
    let error = only(read_stream("source = \"test://\"\nencode.encoder = \"vaap\""));
    assert!(error.starts_with("stream[gate].encode.encoder: \"vaap\" is not one of"), "{error}");
    assert!(error.ends_with("(help: did you mean \"vaapi\"?)"), "{error}");
}

#[test]
fn each_push_has_a_url_of_its_own() {
    let pushed = |tables: &str| read_stream(&format!("source = \"test://\"\n{tables}"));
    for (tables, errors) in [
        ("[[stream.push]]", vec!["push[0].url: is missing (help: where to: \"rtsp://HOST/PATH\" or"]),
        (
            "[stream.push]\nurl = \"rtsp://a/b\"",
            vec!["push: is written [stream.push] (help: write [[stream.push]], with two"],
        ),
        ("[[stream.push]]\nurl = \"a/b\"", vec!["push[0].url: is not a URL"]),
        (
            "[[stream.push]]\nurl = \"https://a/b\"",
            vec!["push[0].url: streams are not pushed by https:// (help: for WHIP,"],
        ),
        (
            "[[stream.push]]\nurl = \"rtmp://a/b\"",
            vec!["push[0].url: unknown scheme \"rtmp\" (help: did you mean rtsp?)"],
        ),
        ("[[stream.push]]\nurl = \"rtsp:///b\"", vec!["push[0].url: has no host"]),
        (
            "[[stream.push]]\nurl = \"rtsp://a/b\"\npassword_file = \"pw\"",
            vec!["push[0].password_file: there is no user for this password"],
        ),
        (
            "[[stream.push]]\nurl = \"rtsp://u:hunter2@a/b\"\nuser = \"u\"\npassword = \"hunter2\"",
            vec!["push[0].user: the URL names a user, too", "push[0].password: unknown key (help: name a file"],
        ),
        (
            "[[stream.push]]\nurl = \"rtsp://a/b\"\n[[stream.push]]\nurl = \"rtsp://u@a/b\"\n[[stream.push]]\nurl = 5",
            vec![
                "push[1].url: is pushed to already, by a table above",
                "push[2].url: must be a string, not an integer",
            ],
        ),
        (
            "[stream.encode]\nurl = \"rtsp://a/b\"",
            vec!["encode.url: unknown key (help: it belongs in [[stream.push]])"],
        ),
    ] {
        let found = pushed(tables).expect_err(tables);
        assert_eq!(found.errors.len(), errors.len(), "{tables}: {found}");
        for (found, expected) in found.errors.iter().zip(errors) {
            let found = found.to_string();
            assert!(found.starts_with(&format!("stream[gate].{expected}")), "{tables}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
    let stream = pushed("[[stream.push]]\nurl = \"whip+http://10.0.0.9:8889/gate/whip?token=hunter2\"").unwrap();
    assert_eq!(stream.push[0].target.label(), "whip+http://10.0.0.9:8889/gate/whip?token=***");
}

#[test]
fn each_sink_has_the_keys_of_its_type() {
    let with = |tables: &str| read_stream(&format!("source = \"test://\"\n{tables}"));
    for (tables, errors) in [
        ("[[stream.sink]]", vec!["sink[0].type: is missing (help: write type = \"jsonl\" or "]),
        (
            "[stream.sink]\ntype = \"jsonl\"",
            vec!["sink: is written [stream.sink] (help: write [[stream.sink]], with two", "sink[0].path: is missing"],
        ),
        ("[[stream.sink]]\ntype = \"json\"\npath = \"a\"", vec!["sink[0].type: \"json\" is not one of \"jsonl\", "]),
        ("[[stream.sink]]\ntype = \"jsonl\"", vec!["sink[0].path: is missing (help: Path of the file."]),
        (
            "[[stream.sink]]\ntype = \"jsonl\"\npath = \".\"\nevery = \"1ms\"\npaht = 1",
            vec![
                "sink[0].path: is a folder, not a file",
                "sink[0].every: 1ms is not between 100ms and",
                "sink[0].paht: unknown key (help: did you mean path?)",
            ],
        ),
        (
            "[[stream.sink]]\ntype = \"jsonl\"\npath = \"a\"\n[[stream.sink]]\ntype = \"jsonl\"\npath = \"./a\"",
            vec!["sink[1].type: is the same sink as in a table above"],
        ),
        (
            "[[stream.sink]]\ntype = \"udp\"\npath = \"a\"",
            vec![
                "sink[0].address: is missing (help: The destination,",
                "sink[0].path: is not a key of the type \"udp\"",
            ],
        ),
        (
            "[[stream.sink]]\ntype = \"udp\"\naddress = \"10.0.0.9\"",
            vec!["sink[0].address: \"10.0.0.9\" is not a host and a port (help: write \"HOST:PORT\""],
        ),
    ] {
        let found = with(tables).expect_err(tables);
        assert_eq!(found.errors.len(), errors.len(), "{tables}: {found}");
        for (found, expected) in found.errors.iter().zip(errors) {
            let found = found.to_string();
            assert!(found.starts_with(&format!("stream[gate].{expected}")), "{tables}: {found}");
        }
    }
    let stream = with("[[stream.sink]]\ntype = \"jsonl\"\npath = \"masks.jsonl\"\nevery = 2").unwrap();
    let sink = &stream.sinks[0];
    assert!(sink.label().ends_with("/masks.jsonl"), "{}", sink.label());
    let json = serde_json::to_value(sink).unwrap();
    assert_eq!((&json["type"], &json["every"]), (&"jsonl".into(), &"2s".into()), "{json}");
    for (address, is_valid) in [
        ("10.0.0.9:5000", true),
        ("Masks.example:5000", true),
        ("[fd00::9]:5000", true),
        ("fd00::9:5000", false),
        ("[masks]:5000", false),
        (":5000", false),
        ("10.0.0.9:0", false),
        ("10.0.0.9:65536", false),
        ("udp://10.0.0.9:5000", false),
    ] {
        let read = with(&format!("[[stream.sink]]\ntype = \"udp\"\naddress = {address:?}"));
        assert_eq!(read.is_ok(), is_valid, "{address}");
        read.into_iter().for_each(|stream| assert_eq!(stream.sinks[0].label(), address.to_ascii_lowercase()));
    }
}
