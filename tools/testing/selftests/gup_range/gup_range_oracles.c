// SPDX-License-Identifier: GPL-2.0-only
/* See gup_range_oracles.h. */
#define _GNU_SOURCE
#include "gup_range_oracles.h"

#define IOVA_SLAB	"/sys/kernel/slab/iommu_iova/"
#define TRACE_KB	8192	/* of each CPU */

long pins_now(void)
{
	long acquired, released;

	/* Per-CPU differences are folded by this. */
	if (write_file("/proc/sys/vm/stat_refresh", "1"))
		return ORACLE_FAILED;
	acquired = file_number("/proc/vmstat", "nr_foll_pin_acquired");
	released = file_number("/proc/vmstat", "nr_foll_pin_released");
	if (acquired < 0 || released < 0)
		return ORACLE_FAILED;
	return acquired - released;
}

long swiotlb_used(void)
{
	return file_long(SWIOTLB "io_tlb_used");
}

long iova_objects(void)
{
	/* In lazy mode some are freed 10 ms later. */
	usleep(30000);
	if (write_file(IOVA_SLAB "shrink", "1"))
		return -1;
	return file_long(IOVA_SLAB "objects");
}

long iova_noise(void)
{
	return boot_has("slab_nomerge") ? 0 : 50;
}

/* -------------------------------------------------------------------- trace */

const char *trace_start(void)
{
	const char *path = TRACING "buffer_size_kb";
	char size[16];

	sprintf(size, "%d", TRACE_KB);
	if (file_long(path) < TRACE_KB && write_file(path, size))
		return path;
	path = TRACING "trace";
	if (write_file(path, ""))
		return path;
	path = TRACING "events/iommu/map/enable";
	if (write_file(path, "1"))
		return path;
	path = TRACING "events/iommu/unmap/enable";
	return write_file(path, "1") ? path : NULL;
}

const char *trace_stop(void)
{
	const char *path = TRACING "events/iommu/map/enable";

	if (write_file(path, "0"))
		return path;
	path = TRACING "events/iommu/unmap/enable";
	return write_file(path, "0") ? path : NULL;
}

/* Did the buffer of a CPU lose events? */
static const char *trace_lost(void)
{
	char path[96];
	long lost;
	int cpu;

	for (cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
		sprintf(path, TRACING "per_cpu/cpu%d/stats", cpu);
		lost = file_number(path, "overrun");
		if (lost)
			return lost < 0 ? "no statistics of the buffer" :
					  "the buffer was too small";
	}
	return NULL;
}

/* From @iova on there are @step more maps than unmaps. */
struct step {
	uint64_t iova;
	int step;
};

struct steps {
	struct step *v;
	size_t nr, room;
};

static int step_order(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	return x->iova < y->iova ? -1 : x->iova > y->iova;
}

static bool steps_add(struct steps *s, uint64_t iova, uint64_t len, int step)
{
	if (s->nr + 2 > s->room) {
		size_t room = s->room ? 2 * s->room : 1024;
		void *v = realloc(s->v, room * sizeof(*s->v));

		if (!v)
			return false;
		s->v = v;
		s->room = room;
	}
	s->v[s->nr++] = (struct step){ iova, step };
	/* The end of the address space is no IOVA: nothing begins there. */
	if (iova + len)
		s->v[s->nr++] = (struct step){ iova + len, -step };
	return true;
}

/* One line of the trace; false: it is not as it should be. */
static bool steps_parse(struct steps *s, struct iova_balance *b,
			const char *line)
{
	const char *what = strstr(line, "map: IOMMU: iova="), *size;
	bool unmap = strstr(line, " unmap: IOMMU: iova=");
	uint64_t len;

	if (!what)
		return true;
	size = strstr(what, unmap ? "unmapped_size=" : " size=");
	if (!size)
		return false;
	len = strtoull(strchr(size, '=') + 1, NULL, 10);
	b->events++;
	b->bytes += unmap ? -len : len;
	return steps_add(s, strtoull(what + 17, NULL, 16), len,
			 unmap ? -1 : 1);
}

/* Whatever the order of the events is, which two CPUs may disagree on. */
static void steps_sum(struct steps *s, struct iova_balance *b)
{
	size_t i;

	qsort(s->v, s->nr, sizeof(*s->v), step_order);
	for (i = 0; i < s->nr; i++) {
		if (i && s->v[i].iova != s->v[i - 1].iova && b->count)
			return;
		b->iova = s->v[i].iova;
		b->count += s->v[i].step;
	}
}

void iova_balance(struct iova_balance *b)
{
	FILE *f = fopen(TRACING "trace", "r");
	struct steps s = {};
	char line[512];

	memset(b, 0, sizeof(*b));
	b->error = f ? trace_lost() : "it cannot be read";
	while (!b->error && fgets(line, sizeof(line), f))
		if (!steps_parse(&s, b, line))
			b->error = "a line without a size";
	if (!b->error && b->events)
		steps_sum(&s, b);
	if (f)
		fclose(f);
	free(s.v);
}

const char *iova_phys(uint64_t iova, size_t len, uint64_t *phys)
{
	FILE *f = fopen(TRACING "trace", "r");
	const char *error = f ? trace_lost() : "it cannot be read", *p;
	unsigned long long at, end, pa;
	char line[512];

	while (!error && fgets(line, sizeof(line), f)) {
		p = strstr(line, " map: IOMMU: iova=");
		if (!p)
			continue;
		if (sscanf(p, " map: IOMMU: iova=%llx - %llx paddr=%llx", &at,
			   &end, &pa) != 3)
			error = "a line that cannot be read";
		/* The end may be that of the address space, 0. */
		for (; !error && at != end; at += PAGE, pa += PAGE)
			if (at >= iova && at - iova < len)
				phys[(at - iova) / PAGE] = pa;
	}
	if (f)
		fclose(f);
	return error;
}

/* ---------------------------------------------------------------- fault log */

static int kmsg = -1;

/* Before the first test: each is a process of its own, and where to read is shared. */
static void __attribute__((constructor)) kmsg_open(void)
{
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (kmsg >= 0)
		lseek(kmsg, 0, SEEK_END);
}

int iommu_faults(void)
{
	/* A record that does not fit would be an error. */
	char line[8192];
	int faults = 0;
	ssize_t n;

	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue;
		line[n] = 0;
		faults += strstr(line, "[DMA ") && strstr(line, "fault");
		faults += strstr(line, "virtio_iommu") &&
			  strstr(line, "page fault");
	}
	return n < 0 && errno == EAGAIN ? faults : -1;
}

/* ----------------------------------------------------------------- the boot */

bool boot_has(const char *what)
{
	static char cmdline[4096];

	read_file("/proc/cmdline", cmdline, sizeof(cmdline));
	return strstr(cmdline, what);
}

int edu_slot(char *slot)
{
	char path[128];
	int dev;

	for (dev = 0; dev < 32; dev++) {
		sprintf(slot, "0000:00:%02x.0", dev);
		sprintf(path, "/sys/bus/pci/drivers/gup_range_edu/%s", slot);
		if (!access(path, F_OK))
			return 0;
	}
	return -ENODEV;
}

/* Is @driver part of the name of the IOMMU that the test device is behind? */
bool iommu_is(const char *driver)
{
	char slot[32], path[128], link[256] = "";

	if (edu_slot(slot))
		return false;
	sprintf(path, "/sys/bus/pci/devices/%s/iommu", slot);
	return readlink(path, link, sizeof(link) - 1) > 0 &&
	       strstr(link, driver);
}

/* Flush queue or not, for the test device. */
bool iommu_is_lazy(void)
{
	char slot[32], path[128], type[16] = "";

	if (edu_slot(slot))
		return false;
	sprintf(path, "/sys/bus/pci/devices/%s/iommu_group/type", slot);
	read_file(path, type, sizeof(type));
	return !strncmp(type, "DMA-FQ", 6);
}

bool bounces(void)
{
	return boot_has("swiotlb=force") || boot_has(",force");
}

/* ---------------------------------------------------------- fault injection */

static bool write_and_see(const char *path, const char *text)
{
	char back[8] = "";

	if (write_file(path, text) || read_file(path, back, sizeof(back)))
		return false;
	return back[0] == text[0];
}

const char *fail_setup(void)
{
	static const char * const files[][2] = {
		{ "ignore-gfp-wait", "N" }, { "ignore-gfp-highmem", "N" },
		{ "min-order", "0" }, { "verbose", "0" },
	};
	static const char * const attrs[] = { "failslab", "fail_page_alloc" };
	static char path[128];
	int i, j;

	for (i = 0; i < 2; i++) {
		for (j = 0; j < 4; j++) {
			sprintf(path, "/sys/kernel/debug/%s/%s", attrs[i],
				files[j][0]);
			/* Of these failslab has fewer. */
			if (!i && (j == 1 || j == 2))
				continue;
			if (!write_and_see(path, files[j][1]))
				return path;
		}
	}
	return NULL;
}

/* Opened before anything can fail, and by each thread for itself. */
static int fail_nth_file(void)
{
	static __thread pid_t of;
	static __thread int fd = -1;
	char path[64];

	if (of == gettid())
		return fd;
	sprintf(path, "/proc/self/task/%ld/fail-nth", (long)gettid());
	fd = open(path, O_RDWR);
	if (fd < 0)
		return -errno;
	of = gettid();
	return fd;
}

/*
 * Reading and writing the file can be what fails, EFAULT, and then nothing else
 * has before.
 */
int fail_nth_left(int n)
{
	int fd = fail_nth_file(), left = 0;
	char buf[16] = "";

	if (fd < 0)
		return fd;
	if (!n) {
		if (pread(fd, buf, sizeof(buf) - 1, 0) > 0)
			left = atoi(buf);
		else if (errno == EFAULT)
			left = 1;
		else
			return -errno;
	}
	sprintf(buf, "%d", n);
	if (pwrite(fd, buf, strlen(buf), 0) > 0)
		return left;
	if (n || errno != EFAULT)
		return -errno;
	return pwrite(fd, "0", 1, 0) == 1 ? left : -errno;
}
