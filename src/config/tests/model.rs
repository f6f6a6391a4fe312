//! `[model]` and `[[model]]`.

use super::*;

#[test]
fn providers_and_requirement() {
    assert_eq!(read_model("providers = [\"cpu\"]").unwrap().providers, [Provider::Cpu]);
    assert!(only(read_model("providers = []")).starts_with("model.providers: must not be empty"));
    assert!(only(read_model("providers = \"cpu\"")).starts_with("model.providers: must be an array, not a string"));
    let error = only(read_model("providers = [\"cpu\"]\nrequire = \"gpu\""));
    assert!(error.starts_with("model.require: \"gpu\" is required, but only \"cpu\" may be used"), "{error}");
    assert!(only(read_model("threads = 99999999999999999999")).starts_with("model.threads: 99999999999999999999 is"));
    assert!(only(read_model("cache_dir = \"pw\"")).starts_with("model.cache_dir: is a file, not a folder"));
    assert!(only(read_model("runtime = \".\"")).starts_with("model.runtime: is a folder, not a file"));
}

#[test]
fn devices_are_a_number_or_a_list() {
    for (written, numbers) in [("3", &[3][..]), ("[1, 0]", &[1, 0]), ("[2]", &[2])] {
        let model = read_model(&format!("device = {written}")).unwrap();
        assert_eq!(model.device.numbers(), numbers, "{written}");
        let shown = serde_json::to_value(&model.device).unwrap();
        assert_eq!(serde_json::from_value::<Devices>(shown).unwrap(), model.device);
    }
    assert_eq!(read_model("").unwrap().device.numbers(), [0]);
    for (written, problem) in [
        ("64", "model.device: 64 is not between 0 and 63"),
        ("[]", "model.device: must not be empty"),
        ("[0, 1, 0]", "model.device[2]: 0 is listed twice"),
        ("[0, 64]", "model.device[1]: 64 is not between 0 and 63"),
        ("\"all\"", "model.device: must be an integer, not a string"),
    ] {
        let error = only(read_model(&format!("device = {written}")));
        assert!(error.starts_with(problem), "{error}");
    }
}

const STREAMS: &str = "[[stream]]\nname = \"a\"\nsource = \"test://\"\n\
                       [[stream]]\nname = \"b\"\nsource = \"test://\"\nmodel = \"street\"\n";

fn models(text: &str) -> Result<Config, ConfigErrors> {
    read(folder().path(), &format!("{text}{STREAMS}"))
}

#[test]
fn a_stream_has_the_model_that_it_names_or_the_first() {
    let two = "[[model]]\nname = \"yard\"\npath = \"m.onnx\"\nthreads = 1\n\
               [[model]]\nname = \"street\"\npath = \"clip.avi\"\nthreads = 2\n";
    let config = models(two).unwrap();
    let of_streams: Vec<&str> = config.streams.iter().map(|stream| stream.model.as_str()).collect();
    assert_eq!(of_streams, ["yard", "street"]);
    assert_eq!(config.model("street").unwrap().threads, 2);
    assert_eq!(config.streams_of("yard").map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((config.model_key("yard"), config.models.len()), ("model[yard]".to_owned(), 2));

    // A single table may have a name.
    let config = models("[model]\nname = \"street\"\npath = \"m.onnx\"\n").unwrap();
    assert_eq!((config.streams[0].model.as_str(), config.model_key("street")), ("street", "model".to_owned()));
    // Without one it is called default.
    let error = only(models("model.path = \"m.onnx\"\n"));
    assert_eq!(error, "stream[b].model: unknown model \"street\" (help: models: default)");
    let text = STREAMS.replace("street", "default");
    let config = read(folder().path(), &format!("model.path = \"m.onnx\"\n{text}")).unwrap();
    assert_eq!((config.models[0].name.as_str(), config.streams[1].model.as_str()), (DEFAULT_MODEL, DEFAULT_MODEL));
}

#[test]
fn errors_of_several_models_have_their_places() {
    let errors = |text: &str| -> Vec<String> {
        models(text).unwrap_err().errors.iter().map(|error| format!("{}: {error}", error.line.unwrap_or(0))).collect()
    };
    let street = "[[model]]\nname = \"street\"\npath = \"m.onnx\"\n";
    assert_eq!(
        errors(&format!("{street}[[model]]\npath = \"m.onnx\"\n")),
        ["4: model[1].name: is missing (help: each [[model]] needs a name)"]
    );
    assert_eq!(
        errors(&format!("{street}{street}")),
        ["5: model[1].name: \"street\" is already the name of another model (help: names must differ)"]
    );
    assert_eq!(
        errors(&format!("{street}[[model]]\nname = \"yard\"\npath = \"m.onnx\"\nworkers = -1\nwokers = 2\n")),
        [
            "7: model[yard].workers: -1 is not between 0 and 256 (help: 0 is measured at start on the CPU, and two for each \
             GPU; the default is 0)",
            "8: model[yard].wokers: unknown key (help: did you mean workers?)"
        ]
    );
    let found = errors(&format!("{street}[[model]]\nname = \"the yard\"\npath = \"absent.onnx\"\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("5: model[1].name: \"the yard\" has other characters"), "{found:?}");
    assert!(found[1].starts_with("6: model[1].path: no such file"), "{found:?}");
    let none = errors("model = []\n");
    assert!(none[0].starts_with("1: model: there is none (help: write [model], or [[model]]"), "{none:?}");
    assert!(errors("model = 5\n")[0].starts_with("1: model: must be an array of tables"));
}

#[test]
fn all_models_have_one_runtime() {
    let model = |name: &str, more: &str| format!("[[model]]\nname = \"{name}\"\npath = \"m.onnx\"\n{more}\n");
    let config = models(&(model("yard", "") + &model("street", "runtime = \"pw\""))).unwrap();
    assert!(config.models.iter().all(|model| model.runtime.as_ref().is_some_and(|path| path.ends_with("pw"))));
    let error = only(models(&(model("yard", "runtime = \"pw\"") + &model("street", "runtime = \"crlf\""))));
    assert!(error.starts_with("model[street].runtime: is not that of model \"yard\", "), "{error}");
}
