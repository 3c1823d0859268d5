# make run     start the gateway on :5000 and :6000
# make test    every test, with the race detector; installs what the tests need
# make check   what CI runs: format, vet, lint, test
# make bench   measure the gateway against a bare loop of write(2); then every Go benchmark,
#              ten runs each, into bench.txt for benchstat
# make build   one static binary, ./ws-gateway

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Programs that tests run beside the gateway, each with the Debian package that has it.
# gcc is for the race detector; pictures of the page need a font that has Chinese.
NEEDED := gcc:gcc,libc6-dev curl:curl promtool:prometheus nginx:nginx-light haproxy:haproxy redis-server:redis-server php:php-cli node:nodejs npm:npm chromium:chromium

.PHONY: run build test check format vet lint bench tools clean

run:
	$(GO) run .

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o ws-gateway .

check: format vet lint test

format:
	@files=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$files" ] || { echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; }
	$(GO) mod tidy -diff

# vet also builds what is for other systems.
vet:
	$(GO) vet ./...
	GOOS=darwin $(GO) build ./...
	GOOS=windows $(GO) build ./...

lint:
	$(GO) run $(STATICCHECK) -checks all ./...

test: tools
	$(GO) test -race -timeout 10m ./...

bench: build
	./ws-gateway bench all
	$(GO) test -run '^$$' -bench . -benchmem -count 10 -benchtime 100ms -timeout 60m ./... | tee bench.txt

# tools installs the programs that are missing, where it may.
tools:
	@packages=; missing=; \
	for need in $(NEEDED); do \
		command -v $${need%%:*} >/dev/null || [ -x /usr/sbin/$${need%%:*} ] || { \
			missing="$$missing $${need%%:*}"; \
			packages="$$packages $$(echo $${need#*:} | tr , ' ')"; }; \
	done; \
	fc-list :lang=zh 2>/dev/null | grep -q . || { missing="$$missing a-Chinese-font"; packages="$$packages fonts-wqy-microhei"; }; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "the tests need$$missing; install them and run make test again"; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo="sudo -n"; \
	else echo "the tests need$$missing: sudo apt-get install$$packages"; exit 1; fi; \
	echo "installing$$packages"; \
	$$sudo apt-get update -qq -o Acquire::Retries=5 && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Acquire::Retries=5 --no-install-recommends $$packages >/dev/null

clean:
	rm -f ws-gateway bench.txt
