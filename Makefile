# treadle: build, test, install. `make help` lists the targets.
#
# Everything built lies under build/; a variant (VARIANT=asan, tiny, ...) has
# a folder of its own there with the same things in it. CC, CPPFLAGS, CFLAGS,
# LDFLAGS, LDLIBS, PREFIX and DESTDIR mean what they always mean.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# --- the distribution's packages: the only place where they are named --------
PACKAGES       := make gcc libc6-dev pkg-config luajit libluajit-5.1-dev \
                  libuv1-dev lua-luv lua-busted luarocks
CHECK_PACKAGES := lua-check clang clang-format libclang-rt-14-dev valgrind \
                  spin chromium git lua-ldoc mandoc wrk libpcre3 neovim love \
                  xvfb xauth g++ lua-cqueues lua-copas lua-socket
# Unpacked, not installed: Debian's Lua module of nginx excludes the LuaJIT that
# the others are built with, and an nginx that is installed starts to serve.
NGINX_PACKAGES := nginx libnginx-mod-http-ndk libnginx-mod-http-lua \
                  libluajit2-5.1-2 lua-resty-core lua-resty-lrucache

# --- what is built, and where ------------------------------------------------
VARIANT :=
B       := build$(VARIANT:%=/%)

# A folder is a layer, lowest first. `make LAYERS="base queue" \
# build/test/ring_test` builds a test with those alone.
LAYERS   := base link queue codec job confine share run bind
CORE_SRC := $(sort $(foreach l,$(LAYERS),$(wildcard src/$l/*.c)))
CLI_SRC  := $(sort $(wildcard src/cli/*.c))
LUA_SRC  := $(sort $(shell find lua -name '*.lua' -o -name '*.html'))

# C tests link with spec/c/*.c that are no tests themselves.
C_TESTS      := $(sort $(wildcard spec/c/*_test.c))
C_SUPPORT    := $(sort $(filter-out %_test.c,$(wildcard spec/c/*.c)))
SPECS        := $(sort $(wildcard spec/*_spec.lua))
STATIC_SPECS := spec/layers_spec.lua spec/style_spec.lua
STRESS_TESTS := $(sort $(wildcard spec/stress/*_test.c))
STRESS_SPECS := $(sort $(wildcard spec/stress/*_spec.lua))
FUZZERS      := $(sort $(wildcard spec/fuzz/*_fuzz.c))

GEN_OBJ     := $(if $(filter bind,$(LAYERS)),$(B)/obj/gen/embedded.o)
CORE_OBJ    := $(CORE_SRC:src/%.c=$(B)/obj/%.o) $(GEN_OBJ)
CLI_OBJ     := $(CLI_SRC:src/%.c=$(B)/obj/%.o)
SUPPORT_OBJ := $(C_SUPPORT:%.c=$(B)/obj/%.o)
test_bins    = $(patsubst %.c,$(B)/test/%,$(notdir $(1)))

MODULE  := $(B)/treadle.so
COMMAND := $(B)/treadle

# For programs in C: the same, with an interpreter (`make libs`).
VERSION   := $(shell sed -n 's/^\#define TREADLE_VERSION "\(.*\)"/\1/p' src/treadle.h)
SONAME    := libtreadle.so.0
SHARED    := $(B)/libtreadle.so.$(VERSION)
STATIC    := $(B)/libtreadle.a
PC        := $(B)/treadle.pc

# --- flags -------------------------------------------------------------------
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CFLAGS  ?= -O2 -g
WERROR  :=
LUAJIT  := luajit
PKG     := pkg-config
UV_CFLAGS  := $(shell $(PKG) --cflags libuv luajit 2>/dev/null)
UV_LIBS    := $(shell $(PKG) --libs libuv 2>/dev/null)
# Folders that luarocks knows of come first; its Lua may be another than LuaJIT.
ROCK_CFLAGS = $(addprefix -I,$(filter-out /usr/include,$(LIBUV_INCDIR) \
                $(patsubst %/luajit.h,%,$(wildcard $(LUA_INCDIR:%=%/luajit.h)))))
LUA_LIBS   := $(shell $(PKG) --libs luajit 2>/dev/null)

# A test build with odd, tiny constants makes the rare paths the common ones;
# its allocator counts blocks and fails on demand.
TEST_ALLOC := -DTDL_TEST_ALLOC
TINY       := $(TEST_ALLOC) -DTDL_RING_CELLS=2 -DTDL_SLOT_CELLS=2 \
              -DTDL_JOB_INLINE_BYTES=8 -DTDL_JOB_SLAB_COUNT=1 -DTDL_JOB_KEEP_BYTES=64 \
              -DTDL_JOB_BUSY_BYTES=128 -DTDL_HEAP_CLASS_BYTES=64 \
              -DTDL_HEAP_SMALLEST_BYTES=256 -DTDL_HEAP_LARGEST_BYTES=4096 \
              -DTDL_HEAP_KEEP_BYTES=4096 -DTDL_HEAP_BUSY_BYTES=16384 \
              -DTDL_MESSAGE_INLINE_BYTES=8 -DTDL_MESSAGE_KEEP_BYTES=64 \
              -DTDL_CHANNEL_IDLE_MESSAGES=2 -DTDL_STREAM_BUFFER=2 -DTDL_PUMP_AHEAD=2 \
              -DTDL_SPIN_MAX_NS=1 -DTDL_STATS_STREAK=2 -DTDL_STATS_GAP=3 \
              -DTDL_SHARED_WHOLE_COUNT=3 -DTDL_REGION_FILL_BYTES=12288
BIG_STACK  := -DTDL_WORKER_STACK_BYTES=8388608
SANE       := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all

# gc:    every state collects garbage all the time, a cycle in 25 KiB or so.
# nojit: no state compiles.
# asan:  gcc, shrunk constants. ubsan: clang, whose warnings differ from gcc's.
# tsan:  gcc; it knows no fences (-Wno-tsan), so that where a fence makes the
#        edge, an acquire/release must make it too. clang 14's runtime for
#        libraries does not start.
# The interpreter that loads treadle.so was built without the sanitizer, whose
# runtime PRELOAD must come first: a `luajit` of the variant's own does that.
variant_tiny_flags  := $(TINY)
variant_gc_flags    := -DTDL_TEST_GC
variant_nojit_flags := -DTDL_TEST_NO_JIT
variant_asan_flags  := $(SANE) -fsanitize=address,undefined $(TINY) $(BIG_STACK)
variant_asan_cc     := gcc
variant_asan_lib     = libasan.so
variant_ubsan_flags := $(SANE) -fsanitize=undefined $(TEST_ALLOC)
variant_ubsan_cc    := clang
variant_ubsan_lib    = libclang_rt.ubsan_standalone-$(MACHINE).so
variant_tsan_flags  := $(SANE) -fsanitize=thread -Wno-tsan $(TEST_ALLOC) \
                       $(BIG_STACK)
variant_tsan_cc     := gcc
variant_tsan_lib     = libtsan.so
# stall: pauses of random length between the steps of the hand-off.
variant_nospin_flags    := $(TEST_ALLOC) -DTDL_SPIN_MAX_NS=1
variant_stall_flags     := $(TEST_ALLOC) -DTDL_TEST_STALL
variant_tinystall_flags := $(TINY) -DTDL_TEST_STALL
# valgrind: shrunk. Its threads run one at a time, and one that waits for its turn
# looks like one that stands still. Stacks are copied by the kernel: it would ask
# what on them was written.
variant_valgrind_flags  := $(TINY) -DTDL_STOP_STILL_NS=2000000000u \
                           -DTDL_STOP_PATIENCE_NS=2000000000u \
                           -DTDL_STACK_PROBES=0
variant_fuzz_flags  := $(SANE) -fsanitize=fuzzer-no-link,address,undefined
variant_fuzz_cc     := clang
# stamps: each call leaves a trace of when it passed which point; the bench's
# page of stages (make bench BENCH_ARGS=--where) reads it.
variant_stamps_flags := -DTDL_STAMPS
VARIANTS            := tiny gc nojit nospin stall tinystall asan ubsan tsan valgrind fuzz \
                       stamps

ifneq ($(VARIANT),)
ifeq ($(filter $(VARIANT),$(VARIANTS)),)
$(error unknown VARIANT '$(VARIANT)'; there are: $(VARIANTS))
endif
CC      := $(or $(variant_$(VARIANT)_cc),$(CC))
MACHINE := $(shell uname -m)
PRELOAD := $(if $(variant_$(VARIANT)_lib),$(shell \
             $(CC) -print-file-name=$(variant_$(VARIANT)_lib) 2>/dev/null))
endif
SANITIZED := $(filter -fsanitize=%,$(variant_$(VARIANT)_flags))

# initial-exec: a thread-local is reached without a call, so that the signal
# handler may touch one; -z now: nor does it ever enter the dynamic linker.
# nodelete: lua_close of the loading state must not unload running code.
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla \
            $(if $(WERROR),-Werror)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE $(WARNINGS) -pthread -fPIC \
             -fvisibility=hidden -funwind-tables -ftls-model=initial-exec \
             $(patsubst -I%,-isystem%,$(ROCK_CFLAGS) $(UV_CFLAGS)) -Isrc \
             $(CPPFLAGS) $(CFLAGS) $(variant_$(VARIANT)_flags)
ALL_LDFLAGS = -pthread -Wl,-z,now $(SANITIZED) \
              $(if $(and $(PRELOAD),$(filter clang%,$(CC))),-shared-libsan \
              -Wl$(comma)-rpath$(comma)$(dir $(PRELOAD))) $(LDFLAGS) \
              $(addprefix -L,$(LIBUV_LIBDIR))
comma := ,

# --- building ----------------------------------------------------------------
# V=1 shows the commands.
V   :=
SAY  = $(if $(V),,@printf '  %-6s %s\n' $(1) $@$(newline)@)

.PHONY: all
all: $(MODULE) $(COMMAND) ## build build/treadle.so and build/treadle
	@:

$(MODULE): $(CORE_OBJ) $(B)/link.flags
	$(call SAY,LINK)$(CC) -shared -Wl,-z,nodelete $(ALL_LDFLAGS) -o $@ $(CORE_OBJ) \
	  $(UV_LIBS) $(LDLIBS)

.PHONY: libs
libs: $(SHARED) $(STATIC) ## build the libraries for programs in C
	@:

$(SHARED): $(CORE_OBJ) $(B)/link.flags
	$(call SAY,LINK)$(CC) -shared -Wl,-z,nodelete -Wl,-soname,$(SONAME) \
	  $(ALL_LDFLAGS) -o $@ $(CORE_OBJ) $(LUA_LIBS) $(UV_LIBS) -lm -ldl $(LDLIBS)

# One object, in which nothing but what is public can be seen.
$(STATIC): $(CORE_OBJ) $(B)/link.flags
	$(call SAY,AR)$(CC) -r -nostdlib -o $(B)/obj/treadle.o $(CORE_OBJ) && \
	  objcopy --localize-hidden $(B)/obj/treadle.o && \
	  rm -f $@ && ar rcs $@ $(B)/obj/treadle.o

$(COMMAND): $(CLI_OBJ) $(CORE_OBJ) $(B)/link.flags
	$(call SAY,LINK)$(CC) -rdynamic $(ALL_LDFLAGS) -o $@ $(CLI_OBJ) $(CORE_OBJ) \
	  $(LUA_LIBS) $(UV_LIBS) -lm -ldl $(LDLIBS)

$(B)/test/%: $(B)/obj/test/%.o $(SUPPORT_OBJ) $(CORE_OBJ) $(B)/link.flags
	@mkdir -p $(@D)
	$(call SAY,LINK)$(CC) -rdynamic $(ALL_LDFLAGS) -o $@ $< $(SUPPORT_OBJ) $(CORE_OBJ) \
	  $(LUA_LIBS) $(UV_LIBS) -lm -ldl $(LDLIBS)

$(B)/test/%_fuzz: private ALL_LDFLAGS += -fsanitize=fuzzer

# Takes the runtime out of the environment again: sh does not survive it.
define LUAJIT_SH
#!/bin/sh
LD_PRELOAD='$(PRELOAD)' exec $(shell command -v $(LUAJIT)) \
  -e 'local f = require "ffi" f.cdef "int unsetenv(const char *);"' \
  -e 'require("ffi").C.unsetenv "LD_PRELOAD"' "$$@"
endef
$(B)/luajit: Makefile | $(B)/link.flags
	$(file >$@,$(LUAJIT_SH))
	@chmod +x $@

COMPILE = @mkdir -p $(@D)$(newline)$(call SAY,CC)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
define newline


endef

$(B)/obj/%.o: src/%.c $(B)/compile.flags
	$(COMPILE)
$(B)/obj/spec/%.o: spec/%.c $(B)/compile.flags
	$(COMPILE)
$(B)/obj/test/%.o: spec/c/%.c $(B)/compile.flags
	$(COMPILE)
$(B)/obj/test/%.o: spec/stress/%.c $(B)/compile.flags
	$(COMPILE)
$(B)/obj/test/%.o: spec/fuzz/%.c $(B)/compile.flags
	$(COMPILE)
$(B)/obj/gen/%.o: build/gen/%.c $(B)/compile.flags
	$(COMPILE)

build/gen/embedded.c: src/bind/embed.lua $(LUA_SRC) build/gen/embedded.list
	$(call SAY,EMBED)$(LUAJIT) src/bind/embed.lua $@ $(LUA_SRC)

# A stamp is rewritten only when its text changes, and then what depends on it
# is made anew: other flags, a source that came or went.
define STAMP
@mkdir -p $(@D)
@printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' > $@
endef
$(B)/compile.flags: FORCE | toolchain
	$(call STAMP,$(CC) $(ALL_CFLAGS))
$(B)/link.flags: FORCE | toolchain
	$(call STAMP,$(CC) $(ALL_LDFLAGS) $(LDLIBS) $(CORE_OBJ) $(CLI_OBJ) $(SUPPORT_OBJ))
build/gen/embedded.list: FORCE
	$(call STAMP,$(LUA_SRC))

.PHONY: FORCE toolchain
FORCE:
toolchain:
	@for tool in $(CC) $(LUAJIT) $(PKG); do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	for lib in luajit libuv; do \
	  $(PKG) --exists $$lib 2>/dev/null || missing="$$missing $$lib.pc"; done; \
	if [ -n "$$missing" ]; then \
	  echo "treadle: not found:$$missing. 'make setup' installs what is" \
	    "missing (Debian: $(PACKAGES))" >&2; exit 1; fi

.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

# --- running -----------------------------------------------------------------
# A target that needs the packages installs them first and then starts make
# again, which finds the libraries that this one may not have seen.
.PHONY: setup setup-check
setup: ## install the packages that are missing (apt)
	@.ci/setup $(PACKAGES)
setup-check:
	@.ci/setup $(PACKAGES) $(CHECK_PACKAGES)

AGAIN = +@$(MAKE) --no-print-directory \
        $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

# The frame loop of examples/engine, with the static library.
ENGINE := $(B)/engine
$(ENGINE): examples/engine/engine.c $(STATIC)
	$(call SAY,CC)$(CC) -std=c11 -O2 $(WARNINGS) -pedantic -Isrc $(UV_CFLAGS) -o $@ $^ \
	  -Wl,-z,now -pthread $(LUA_LIBS) $(UV_LIBS) -lm -ldl
.PHONY: engine
engine: setup ## set up, build and run the frame loop in C (ENGINE_ARGS="10 6 128")
	$(AGAIN) all $(ENGINE)
	$(ENGINE) examples/engine/terrain.lua build/terrain.ppm $(ENGINE_ARGS)

.PHONY: demo bench load
demo: setup ## set up, build, count words, draw a picture (DEMO_ARGS=folder)
	$(AGAIN) all
	build/treadle examples/wordcount.lua $(DEMO_ARGS)
	build/treadle examples/mandelbrot.lua build/mandelbrot.png

# The pictures of the documentation, and the page of a recording.
.PHONY: pictures
PICTURES := docs/pictures
pictures: setup ## set up, build, draw the pictures in docs/pictures
	$(AGAIN) all
	build/treadle $(PICTURES)/profile.lua build/wordcount.folded \
	  examples/wordcount.lua $(DEMO_ARGS) >build/wordcount.txt
	$(LUAJIT) $(PICTURES)/flamegraph.lua --title examples/wordcount.lua \
	  <build/wordcount.folded >$(PICTURES)/flame.svg
	build/treadle $(PICTURES)/timeline.lua build/timeline.json
	build/treadle trace build/timeline.json --svg $(PICTURES)/timeline.svg
	build/treadle trace build/timeline.json --html docs/trace.html

bench: setup ## set up, build, measure (BENCH_ARGS=...)
	$(AGAIN) all
	$(if $(findstring --where,$(BENCH_ARGS)),$(AGAIN) VARIANT=stamps all)
	build/treadle spec/bench/run.lua $(BENCH_ARGS)

load: setup-check ## the HTTP server of examples/server under wrk (LOAD_ARGS=...)
	$(AGAIN) all
	build/treadle spec/bench/server.lua $(LOAD_ARGS)

# --- testing -----------------------------------------------------------------
# ONLY="ring pool" takes the tests whose file names contain one of the words.
ONLY    :=
FULL    :=
SECONDS := 60
only     = $(if $(ONLY),$(foreach f,$(1),$(if $(strip \
             $(foreach w,$(ONLY),$(findstring $w,$(notdir $f)))),$f)),$(1))
SUITE    = .ci/suite -b $(B) -t $(SECONDS) -l '$(ALONE)'

# Specs that nothing else may run beside, with the reason.
# stress: both processors are theirs.
ALONE := $(STRESS_SPECS)

# `make test` runs the C tests twice: as shipped, and shrunk.
RUN_TESTS = $(call only,$(call test_bins,$(C_TESTS)))
RUN_SPECS = $(call only,$(SPECS))
RUN_TINY  = $(RUN_TESTS:build/%=build/tiny/%)

# The codec alone, as a module: with what only C can ask of it.
CODEC_MODULE := $(B)/test/codec_module.so
$(CODEC_MODULE): $(B)/obj/spec/c/codec_module.o $(B)/obj/bind/codec_bind.o \
  $(filter $(B)/obj/base/% $(B)/obj/codec/%,$(CORE_OBJ)) $(B)/link.flags
	@mkdir -p $(@D)
	$(call SAY,LINK)$(CC) -shared $(ALL_LDFLAGS) -o $@ $(filter %.o,$^)

.PHONY: test test-build
test: setup ## set up, build, run all C tests and specs (ONLY="word ...")
	$(AGAIN) all test-build
	$(AGAIN) VARIANT=tiny test-build
	@$(SUITE) $(RUN_TESTS) $(RUN_TINY) $(RUN_SPECS)
test-build: $(call test_bins,$(C_TESTS)) $(CODEC_MODULE)
	@:

# Each prints its closing line; `make check` adds them up.
.PHONY: check lint format reformat layers model stamps browser hosts
check: setup-check ## everything: test, and each of the targets below
	+@MAKE='$(MAKE)' .ci/check

lint: setup-check ## luacheck, and mandoc on the manual page
	@mandoc -T lint -W warning docs/man/treadle.1
	@luacheck --quiet --codes --no-color lua spec examples docs src rocks/*.rockspec \
	  .luacheckrc .busted

C_FILES = $(shell find src spec examples -name '*.[ch]')
format: setup-check ## clang-format finds nothing to change
	@clang-format --dry-run -Werror $(C_FILES)
reformat: ## let clang-format change it
	clang-format -i $(C_FILES)

layers: setup ## the rules of src/: what may include what, and how a header looks
	@$(SUITE) $(wildcard $(STATIC_SPECS))

model: setup-check ## spin proves the hand-off on small models, and refutes mutants
	@$(SUITE) -t 600 spec/model/run

stamps: setup ## the build with stamps; the bench's page of stages is right
	$(AGAIN) all
	$(AGAIN) VARIANT=stamps all
	@$(SUITE) -t 120 spec/bench/where_spec.lua

browser: setup-check ## the page of a recording, in Chromium
	$(AGAIN) all
	@$(SUITE) -t 180 $(wildcard spec/browser/*_spec.lua)

hosts: setup-check ## in the programs that others run: real hosts, real clients
	@.ci/unpack build/nginx $(NGINX_PACKAGES)
	$(AGAIN) all
	@$(SUITE) -t 180 $(call only,$(wildcard spec/hosts/*_spec.lua))

.PHONY: docs
docs: setup-check ## pages of the documentation, in build/docs; no warning, no link to nowhere
	@$(LUAJIT) docs/site/make.lua build/docs

# Everything, in circumstances that are rare elsewhere. They are slower: longer
# limits. Static specs have nothing to find there.
.PHONY: $(VARIANTS) variant pinned stress stress-build shaken-build fuzz fuzzers \
        valgrind packaging
RUN_ODD = $(SUITE) -t 240 $(if $(strip $(EXCEPT_TAG)),-x $(strip $(EXCEPT_TAG))) \
          $(filter-out $(EXCEPT_TEST),$(RUN_TESTS)) \
          $(filter-out $(STATIC_SPECS) $(EXCEPT),$(RUN_SPECS))

# What is left out of a variant, with the reason; EXCEPT_TAG is a word in the
# names of tests. All else holds everywhere.
# gc, nojit: the codec specs run themselves under such a collector, and not compiled.
# tsan: the codec and roundtrip specs have one thread. Signals are delivered at
# the next call of the C library, and a script that computes (#computing) makes
# none. Tasks that write the same memory at the same time (#racing) are reported
# there. asan: it keeps freed blocks, so the process grows (#resident).
# oom_every_test takes minutes; oom_test is a part of it. Programs of the
# system's compiler (c_api, engine) do not load a library with a sanitizer.
# Nor does it live behind a filter for system calls.
FILTERED = spec/attacks_process_spec.lua spec/attacks_thread_spec.lua \
           spec/permissions_spec.lua
# Its shadow memory is beyond any limit of memory that the attacks are given.
EXCEPT     = $(if $(filter asan,$(VARIANT)),spec/attacks_process_spec.lua) \
             $(if $(filter gc nojit tsan,$(VARIANT)),$(wildcard spec/codec_*_spec.lua)) \
             $(if $(SANITIZED),spec/c_api_spec.lua spec/engine_spec.lua) \
             $(if $(filter tsan,$(VARIANT)),spec/roundtrip_spec.lua \
               spec/stop_spec.lua spec/retry_spec.lua \
               spec/peers_spec.lua $(FILTERED))
EXCEPT_TEST = $(if $(filter tsan,$(VARIANT)),%/confine_test)
EXCEPT_TAG = $(if $(filter tsan,$(VARIANT)),computing$(comma)racing) \
             $(if $(filter asan,$(VARIANT)),resident)

asan ubsan tsan: setup-check ## C tests and specs under that sanitizer
tiny gc nojit: setup ## C tests and specs: shrunk, always collecting, uncompiled
asan ubsan tsan tiny gc nojit:
	$(AGAIN) VARIANT=$@ variant
variant: all test-build $(if $(PRELOAD),$(B)/luajit) \
  $(if $(filter tsan,$(VARIANT)),stress-build)
	@$(RUN_ODD) $(if $(filter tsan,$(VARIANT)),$(filter-out %/oom_every_test,$(RUN_STRESS)))
pinned: setup ## C tests and specs on one processor
	$(AGAIN) all test-build
	@taskset -c 0 $(RUN_ODD)

# `make stress` runs the stress tests as shipped; and these and the C tests in
# the variants that shake the hand-off. STRESS_ARGS is for the programs; with
# FULL=1 the ends of processes and states are tried more often.
STRESS_SECONDS := $(if $(FULL),3600,300)
SHAKEN     := nospin stall tinystall
RUN_STRESS  = $(call only,$(call test_bins,$(STRESS_TESTS)))
RUN_SHAKEN  = $(call only,$(call test_bins,$(C_TESTS) \
                $(filter spec/stress/%,$(STRESS_TESTS))))

stress: setup ## long proofs with seeds (STRESS_ARGS=..., FULL=1)
	$(AGAIN) all stress-build
	$(foreach v,$(SHAKEN),$(AGAIN) VARIANT=$v shaken-build$(newline))
	@$(if $(FULL),TDL_FULL=1) $(SUITE) -t $(STRESS_SECONDS) -a '$(STRESS_ARGS)' $(RUN_STRESS) \
	  $(foreach v,$(SHAKEN),$(RUN_SHAKEN:build/%=build/$v/%)) \
	  $(call only,$(STRESS_SPECS))
stress-build: $(RUN_STRESS)
	@:
shaken-build: $(RUN_SHAKEN)
	@:

# The decoder and the C reader against forged bytes.
FUZZ_RUNS := 1000000
fuzz: setup-check ## libFuzzer over forged payloads (in full: FUZZ_RUNS=10000000)
	$(AGAIN) VARIANT=fuzz fuzzers
	@FUZZ_RUNS=$(FUZZ_RUNS) $(SUITE) -t 7200 .ci/fuzz
fuzzers: $(call test_bins,$(FUZZERS))
	@:

VALGRIND = valgrind -q --error-exitcode=99 --leak-check=full \
           --errors-for-leak-kinds=definite --fair-sched=yes \
           --suppressions=.ci/valgrind.supp
valgrind: setup-check ## C tests and a Lua script under valgrind
	$(AGAIN) VARIANT=valgrind all test-build
	@.ci/suite -b build/valgrind -t 240 -w '$(VALGRIND)' \
	  $(RUN_TESTS:build/%=build/valgrind/%) \
	  $(call only,spec/support/smoke.lua)

packaging: setup-check ## what make install and luarocks install works elsewhere
	$(AGAIN) all libs
	+@WERROR=$(WERROR) $(SUITE) -t 900 .ci/packaging .ci/embedding

# --- installing --------------------------------------------------------------
PREFIX    ?= /usr/local
BINDIR    ?= $(PREFIX)/bin
LUALIBDIR ?= $(PREFIX)/lib/lua/5.1
INCDIR    ?= $(PREFIX)/include
LIBDIR    ?= $(PREFIX)/lib
DATADIR   ?= $(PREFIX)/share

# What else is installed, "FILE:PLACE": the manual page, what shells complete, and definitions for
# editors, as an addon of lua-language-server.
EXTRAS := docs/man/treadle.1:man/man1/treadle.1 \
          completion/treadle.bash:bash-completion/completions/treadle \
          completion/_treadle:zsh/site-functions/_treadle \
          completion/treadle.fish:fish/vendor_completions.d/treadle.fish \
          config.json:treadle/luals/treadle/config.json \
          library/treadle.lua:treadle/luals/treadle/library/treadle.lua
extra_place = '$(DESTDIR)$(DATADIR)/$(lastword $(subst :, ,$(1)))'

# What programs in C link with; EMBED=no leaves it out. The flags behind Libs.private
# are for libtreadle.a: the handler of an interrupt never enters the linker.
EMBED := yes
define PC_TEXT
prefix=$(PREFIX)
libdir=$(LIBDIR)
includedir=$(INCDIR)

Name: treadle
Description: Lua functions on a pool of LuaJIT states, one per thread
Version: $(VERSION)
Requires.private: luajit libuv
Libs: -L$${libdir} -ltreadle
Libs.private: -Wl,-z,now -pthread -lm -ldl
Cflags: -I$${includedir}
endef

.PHONY: install uninstall install-libs uninstall-libs env clean help
install-libs: libs
	$(file >$(PC),$(PC_TEXT))
	install -D -m 755 $(SHARED) '$(DESTDIR)$(LIBDIR)/$(notdir $(SHARED))'
	ln -sf $(notdir $(SHARED)) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libtreadle.so'
	install -D -m 644 $(STATIC) '$(DESTDIR)$(LIBDIR)/libtreadle.a'
	install -D -m 644 $(PC) '$(DESTDIR)$(LIBDIR)/pkgconfig/treadle.pc'
uninstall-libs:
	rm -f $(addprefix '$(DESTDIR)$(LIBDIR)/,$(addsuffix ',$(notdir $(SHARED)) \
	  $(SONAME) libtreadle.so libtreadle.a pkgconfig/treadle.pc))

install: $(if $(filter yes,$(EMBED)),install-libs)
uninstall: uninstall-libs
install: all ## PREFIX=/usr/local DESTDIR= EMBED=yes
	$(foreach s,$(EXTRAS),install -D -m 644 $(firstword $(subst :, ,$s)) \
	  $(call extra_place,$s)$(newline))
	install -D -m 755 $(MODULE) '$(DESTDIR)$(LUALIBDIR)/treadle.so'
	install -D -m 755 $(COMMAND) '$(DESTDIR)$(BINDIR)/treadle'
	install -D -m 644 src/treadle.h '$(DESTDIR)$(INCDIR)/treadle.h'

uninstall: ## the same PREFIX and DESTDIR
	rm -f $(foreach s,$(EXTRAS),$(call extra_place,$s))
	@cd '$(DESTDIR)$(DATADIR)' 2>/dev/null && rmdir -p treadle/luals/treadle/library || :
	rm -f '$(DESTDIR)$(LUALIBDIR)/treadle.so' '$(DESTDIR)$(BINDIR)/treadle' \
	  '$(DESTDIR)$(INCDIR)/treadle.h'

# An empty or unset LUA_CPATH becomes ';;', which stands for the defaults.
env: ## eval "$(make -s env)": luajit and the shell find this build
	@printf '%s\n' \
	  'export LUA_CPATH='\''$(CURDIR)/$(B)/?.so;'\''"$${LUA_CPATH:-;}"' \
	  'export PATH='\''$(CURDIR)/$(B)'\'':"$$PATH"'

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z][a-z ]*\):[^#]*## /\1\t/p' Makefile | expand -t 18
