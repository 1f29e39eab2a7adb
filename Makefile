# SPDX-License-Identifier: GPL-2.0
# What people and CI call. Everything built lands in build/; "make clean" forgets it.

BUILD := $(CURDIR)/build
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

include lab/tree.mk

.PHONY: help host kernel-tree run shell test test-one test-lab test-upstream test-rdma record-base record-tests test-mutants coverage kernel bench bench-check check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 18

# Packages, source and patched tree; each finds by itself that nothing is to do.
host:
	@lab/host

kernel-tree: linux

# Neither needs the packages of the tests, nor git.
run: ## boot one guest and show what the patches do
	@lab/run demo

shell: ## a prompt in the same guest (Ctrl-A X ends it)
	@lab/run shell

test: kernel-tree ## all tests: every boot, the lab itself, upstream's selftests, RDMA (LAB_LIMIT=minutes)
	@lab/test all

test-one: kernel-tree ## the suites on one boot: BOOT=intel-strict [T=part of a name]
	@lab/test boots --only '$(or $(BOOT),intel-strict)' --filter '$(T)'

test-lab: kernel-tree ## provoke faults: each must turn a run red
	@lab/test lab

test-upstream: kernel-tree ## upstream's selftests, unpatched against patched kernel
	@lab/test upstream

test-rdma: kernel-tree ## RDMA clients, unpatched against patched kernel
	@lab/test rdma

record-base: kernel-tree ## ask the unpatched kernel again, record what it answers
	@lab/test record-base

record-tests: ## record which tests run where, as the last runs' reports say
	@lab/test record-tests

test-mutants: kernel-tree ## break each contract: a test has to notice (ONLY=name for one; slow)
	@lab/test-mutants $(ONLY)

coverage: kernel-tree ## lines of the patches that the tests take: build/coverage (ONLY=boot)
	@lab/coverage $(ONLY)

kernel: kernel-tree ## build the guest kernels of the tests (debug, run)
	@lab/test kernel

bench: kernel-tree ## what it costs, against the ways without: build/bench
	@lab/bench run

bench-check: kernel-tree ## the same; fails if a figure of record got worse by 2 %
	@lab/bench check

check: kernel-tree ## style, warnings, sparse, users, round trip (ONLY=name for one)
	@lab/check $(ONLY)

clean: ## remove what was built, keep build/linux and the fetched source
	@if [ -d build/linux ]; then for w in base each bench-base mutants; do \
		git -C build/linux worktree remove --force $(BUILD)/$$w/linux 2>/dev/null || true; done; fi
	@rm -rf build/out build/base build/bench-base build/mutants build/coverage build/each build/selftests build/rdma-root build/rdma.txt build/logs build/bench build/*.cpio.gz build/*.new \
		build/kvm-probe* build/*-base.json build/host.log
