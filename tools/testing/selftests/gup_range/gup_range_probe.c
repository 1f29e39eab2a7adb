// SPDX-License-Identifier: GPL-2.0-only
/*
 * Are the oracles of gup_range_test alive? Each of them is shown something that it
 * has to see, and says so in a line "# probe NAME ok". Which apply depends on what
 * is between the device and memory: lab.backend= on the command line names it.
 */
#define _GNU_SOURCE
#include "../kselftest_harness.h"
#include "gup_range_oracles.h"

#define MIRROR		GUP_RANGE_EDU_MAP_MIRROR
#define WRITE		GUP_RANGE_EDU_MAP_WRITE
#define ONLY		GUP_RANGE_EDU_MAP_ONLY

static const struct backend {
	const char *name, *driver, *type;
	bool protected, bounce, logs;
} backends[] = {
	{ "none", NULL, NULL, .bounce = true },
	{ "swiotlb", NULL, NULL, .bounce = true },
	{ "vtd-strict", "dmar", "DMA", .protected = true, .logs = true },
	{ "vtd-lazy", "dmar", "DMA-FQ", .protected = true, .logs = true },
	{ "vtd-pt", "dmar", "identity", .bounce = true },
	/* QEMU's: it logs no faults, and its driver says how it is flushed. */
	{ "amd", "ivhd", NULL, .protected = true },
	{ "virtio", "virtio", "DMA-FQ", .protected = true, .logs = true },
};

static const struct backend *this_boot(void)
{
	const struct backend *b;
	char word[32];

	for (b = backends; b < backends + 7; b++) {
		sprintf(word, "lab.backend=%s ", b->name);
		if (boot_has(word))
			return b;
	}
	return NULL;
}

#define NO_BACKEND	"no lab.backend= on the kernel's command line"

FIXTURE(probe)
{
	const struct backend *b;
	int fd;
	unsigned char *p;
	size_t len;
};

FIXTURE_SETUP(probe)
{
	self->b = this_boot();
	if (!self->b)
		SKIP(return, NO_BACKEND);
	self->fd = open(EDU_DEV, O_RDWR);
	ASSERT_GE(self->fd, 0);
	self->len = 64 * PAGE;
	self->p = mem_alloc(MEM_4K, self->len);
	ASSERT_NE(MAP_FAILED, self->p);
}

FIXTURE_TEARDOWN(probe)
{
	if (!self->b)
		return;
	close(self->fd);
	munmap(self->p, self->len);
}

static void probed(struct __test_metadata *_metadata, const char *name)
{
	if (_metadata->exit_code != KSFT_PASS)
		return;
	printf("# probe %s ok\n", name);
	fflush(stdout);
}

/* What the boot is for is what it has: an IOMMU that is not there makes tests skip. */
TEST_F(probe, backend)
{
	const struct backend *b = self->b;
	char slot[32], path[128], type[16] = "";

	EXPECT_EQ(b->protected, edu_protected(self->fd));
	EXPECT_EQ(!strcmp(b->name, "swiotlb"), bounces());
	ASSERT_EQ(0, edu_slot(slot));
	sprintf(path, "/sys/bus/pci/devices/%s/iommu", slot);
	if (!b->driver) {
		EXPECT_NE(0, access(path, F_OK))
			TH_LOG("an IOMMU, where there should be none");
	} else {
		EXPECT_TRUE(iommu_is(b->driver))
			TH_LOG("expected an IOMMU named %s", b->driver);
		sprintf(path, "/sys/bus/pci/devices/%s/iommu_group/type", slot);
		EXPECT_EQ(0, read_file(path, type, sizeof(type)));
		type[strcspn(type, "\n")] = 0;
		if (b->type)
			EXPECT_STREQ(b->type, type);
	}
	probed(_metadata, "backend");
}

TEST_F(probe, pins)
{
	long before = pins_now();
	int h;

	ASSERT_NE(ORACLE_FAILED, before);
	h = edu_map(self->fd, self->p, self->len, WRITE | ONLY);
	ASSERT_GT(h, 0);
	EXPECT_EQ(before + 64, pins_now());
	EXPECT_EQ((long)self->len, file_number(STATS, "pinned_bytes"));
	EXPECT_EQ(1, file_number(STATS, "pins"));
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(before, pins_now());
	EXPECT_EQ(0, file_number(STATS, "pins"));
	probed(_metadata, "pins");
}

TEST_F(probe, vmpin)
{
	static const struct {
		unsigned int acct;
		const char *key;
	} v[] = { { ACCT_PINNED_VM, "VmPin" }, { ACCT_LOCKED_VM, "VmLck" } };
	int i, h;

	for (i = 0; i < 2; i++) {
		h = edu_map_acct(self->fd, self->p, self->len, 0, v[i].acct);
		ASSERT_GT(h, 0);
		EXPECT_EQ((long)self->len / 1024,
			  file_number("/proc/self/status", v[i].key));
		EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
		EXPECT_EQ(0, file_number("/proc/self/status", v[i].key));
	}
	probed(_metadata, "vmpin");
}

/* Pages above what the device is said to reach; most memory is there. */
static int bounced(int fd, unsigned char *p, size_t len)
{
	size_t i;

	if (bounces())
		return edu_map(fd, p, PAGE, WRITE);
	for (i = 0; i < len && mem_phys(p + i) <= UINT32_MAX; i += PAGE)
		;
	if (i == len || edu_mask(fd, UINT32_MAX))
		return -ENXIO;
	return edu_map(fd, p + i, PAGE, WRITE);
}

TEST_F(probe, swiotlb)
{
	size_t len = 32UL << 20;
	unsigned char *p;
	long before;
	int h;

	if (!self->b->bounce)
		SKIP(return, "nothing bounces behind an IOMMU that translates");
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	before = swiotlb_used();
	ASSERT_LE(0, before)
		TH_LOG("%s cannot be read", SWIOTLB "io_tlb_used");
	h = bounced(self->fd, p, len);
	ASSERT_GT(h, 0)
		TH_LOG("-ENXIO: no page above 4 GiB, the guest is too small");
	EXPECT_LT(before, swiotlb_used());
	close(self->fd);
	self->fd = open(EDU_DEV, O_RDWR);
	EXPECT_EQ(before, swiotlb_used());
	munmap(p, len);
	probed(_metadata, "swiotlb");
}

#define IOVAS	64

TEST_F(probe, iova)
{
	size_t len = 64UL << 20;
	long before;
	void *p;
	int i;

	if (!self->b->protected)
		SKIP(return, "no IOVAs without an IOMMU that translates");
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	before = iova_objects();
	ASSERT_LT(0, before);
	/* Too large ones to be kept for the next, once they are free. */
	for (i = 0; i < IOVAS; i++)
		ASSERT_LT(0, edu_map(self->fd, p, len, MIRROR | ONLY));
	EXPECT_LE(before + IOVAS, iova_objects());
	close(self->fd);
	self->fd = open(EDU_DEV, O_RDWR);
	EXPECT_GE(before + iova_noise(), iova_objects());
	munmap(p, len);
	probed(_metadata, "iova");
}

/* What is mapped and was not unmapped is seen, where it is and how often. */
TEST_F(probe, trace)
{
	struct iova_balance b;
	const char *error;
	uint64_t addr;
	int h, other;

	if (!self->b->protected)
		SKIP(return, "no IOMMU maps anything for this device");
	error = trace_start();
	ASSERT_EQ(NULL, error)
		TH_LOG("%s cannot be written", error);
	h = edu_map(self->fd, self->p, self->len, WRITE);
	ASSERT_GT(h, 0);
	addr = edu_addr(self->fd, h, 0);
	iova_balance(&b);
	ASSERT_EQ(NULL, b.error)
		TH_LOG("%s", b.error);
	EXPECT_EQ(1, b.count);
	EXPECT_EQ(addr, b.iova);
	/* As many bytes go as come, but not the same. */
	other = edu_map(self->fd, self->p, self->len, WRITE);
	ASSERT_GT(other, 0);
	ASSERT_EQ(NULL, trace_start());
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	h = edu_map(self->fd, self->p, self->len / 2, WRITE);
	iova_balance(&b);
	EXPECT_NE(0, b.count);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len / 2));
	EXPECT_EQ(0, edu_unmap(self->fd, other, self->len));
	ASSERT_EQ(NULL, trace_start());
	h = edu_map(self->fd, self->p, self->len, WRITE);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(NULL, trace_stop());
	iova_balance(&b);
	EXPECT_EQ(NULL, b.error);
	EXPECT_EQ(0, b.count);
	EXPECT_LT(1, b.events);
	probed(_metadata, "trace");
}

TEST_F(probe, faults)
{
	unsigned char buf[64] = "";
	int h, i, faults = 0;
	uint64_t addr;

	if (!self->b->protected)
		SKIP(return, "no IOMMU stops this device");
	if (!self->b->logs)
		SKIP(return, "QEMU's AMD IOMMU logs no faults");
	h = edu_map(self->fd, self->p, self->len, WRITE);
	ASSERT_GT(h, 0);
	addr = edu_addr(self->fd, h, 0);
	EXPECT_EQ(0, edu_unmap(self->fd, h, self->len));
	EXPECT_EQ(0, iommu_faults());
	EXPECT_EQ(0, edu_dma_raw(self->fd, addr, buf, sizeof(buf),
				 GUP_RANGE_EDU_DMA_WRITE));
	for (i = 0; i < 50 && !faults; i++) {
		usleep(20000);
		faults = iommu_faults();
	}
	EXPECT_LT(0, faults)
		TH_LOG("no fault in the kernel's log for IOVA 0x%llx",
		       (unsigned long long)addr);
	probed(_metadata, "faults");
}

/* The first allocation fails, then the second; one that nobody reaches is left. */
TEST_F(probe, failnth)
{
	const char *error = fail_setup();
	int n, h, failed = 0;

	ASSERT_EQ(NULL, error)
		TH_LOG("%s cannot be set", error);
	for (n = 1; n < 3; n++) {
		EXPECT_FALSE(fail_nth(_metadata, n));
		h = edu_map(self->fd, self->p, self->len, ONLY);
		EXPECT_FALSE(fail_nth(_metadata, 0));
		failed += h == -ENOMEM || h == -EFAULT;
	}
	EXPECT_LT(0, failed);
	fail_nth(_metadata, 10000);
	h = edu_map(self->fd, self->p, self->len, ONLY);
	EXPECT_TRUE(fail_nth(_metadata, 0));
	EXPECT_LT(0, h);
	probed(_metadata, "failnth");
}

TEST_HARNESS_MAIN
