# What people and CI run. `make help` lists it. Needs Rust (rustup.rs) and Python on Debian 12 or later; the rest is
# installed by name, once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Debian's packages: to build and run, and beside these to test.
PACKAGES := ca-certificates gcc libc6-dev pkg-config clang libclang-dev libopencv-dev libgstreamer1.0-dev \
	libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav ffmpeg curl
TEST_PACKAGES := chromium chromium-driver systemd

# ONNX Runtime's library, out of its package on PyPI. `make setup ONNXRUNTIME=onnxruntime-gpu` takes the GPU build.
ONNXRUNTIME ?= onnxruntime
ONNXRUNTIME_VERSION := 1.32.0
RUNTIME := .onnxruntime/$(ONNXRUNTIME)-$(ONNXRUNTIME_VERSION)

CLIP := .demo/vtest.avi
ROOT_DO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup setup-test build demo test lint bench clean

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(RUNTIME) ## Install what building and running needs
	@$(call install,$(PACKAGES))

setup-test: setup ## Install what the tests need beside that
	@$(call install,$(TEST_PACKAGES))

# Asks dpkg first, so that a second run needs neither root nor network.
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

$(CLIP): | setup
	@mkdir -p .demo/package
	@echo "taking vtest.avi out of Debian's package opencv-doc"
	@cd .demo/package && { apt-get download -q opencv-doc 2>/dev/null || \
		{ $(ROOT_DO) apt-get update -q && apt-get download -q opencv-doc 2>/dev/null; }; }
	@dpkg-deb --fsys-tarfile .demo/package/opencv-doc_*.deb | \
		tar -xf - -C .demo/package --wildcards --strip-components=7 '*/vtest.avi'
	@mv .demo/package/vtest.avi $@ && rm -rf .demo/package

build: setup ## Build the release binary
	cargo build --release --locked

demo: build $(CLIP) ## Show it: a clip as a camera, live at http://127.0.0.1:8080/ (SECONDS=20 ends by itself)
	@pipelines/demo.sh $(SECONDS)

test: setup-test ## Run every test
	cargo test --locked

lint: setup ## Formatting, clippy, documentation: no warnings
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

bench: build ## The bare model against the whole pipeline, and drawing alone
	target/release/maskcast bench
	cargo bench --locked --bench overlay

clean: ## Remove build output and what was fetched
	rm -rf target .onnxruntime .demo demo.mp4 demo.png
