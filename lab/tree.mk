# SPDX-License-Identifier: GPL-2.0
# The kernel source and the series: the repository <-> $(BUILD)/linux.

BUILD ?= $(CURDIR)/build
TREE_ENV = BUILD='$(BUILD)' KERNEL_SRC='$(KERNEL_SRC)' FORCE='$(FORCE)' REROLL='$(REROLL)'

.PHONY: fetch linux patches series check-roundtrip

fetch: host ## get the kernel source (KERNEL_SRC= takes your own v7.3 tree or tarball)
	@$(TREE_ENV) lab/fetch-kernel

linux: host ## make build/linux: the base and the series as commits (FORCE=1 drops local work)
	@$(TREE_ENV) lab/tree import

patches: ## write the commits of build/linux back to patches/ and the new files
	@$(TREE_ENV) lab/tree export

series: host ## write the mails of the series to build/outgoing and try git am (REROLL=2 for v2)
	@$(TREE_ENV) lab/tree series

check-roundtrip: ## check that import and export give the same bytes and trees
	@$(TREE_ENV) lab/tree check-roundtrip
