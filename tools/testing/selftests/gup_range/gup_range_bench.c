// SPDX-License-Identifier: GPL-2.0-only
/*
 * What does it cost to make user memory reachable for a device? One line of JSON
 * for each path, kind of memory and size; times are those of one operation, in
 * nanoseconds, which are instructions in a guest whose clock counts them.
 *
 * usage: gup_range_bench kernel MEMORY:BYTES...	through the test driver
 *        gup_range_bench user MEMORY:BYTES...	iommufd and VFIO, see engines()
 *
 * With "user" the device is to be bound to vfio-pci.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/resource.h>
#include <time.h>

#include "gup_range_util.h"
#include "../../../../drivers/misc/gup_range_bench_uapi.h"

#define BENCH_DEV	"/dev/gup_range_bench"
#define KIB64		(64UL << 10)
#define GIB		(1UL << 30)
#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define UNKNOWN		GUP_RANGE_BENCH_UNKNOWN
#define NONE		INT64_MIN

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT	26
#endif

struct result {
	const char	*path;
	int64_t		map, unmap, dirty;
	uint64_t	links, syncs, flushes, metadata, scratch;
};

/* The memory that is measured. */
struct memory {
	const char	*name;
	char		*base;		/* what was mapped */
	size_t		mapped;
	size_t		len;		/* of it, what is measured */
	size_t		runs;
};

static int failures;

static void fail(const struct memory *m, const char *what, const char *why)
{
	failures++;
	printf("# %s:%zu: %s: %s\n", m->name, m->len, what, why);
}

/* Times of one pass; enough passes that one is not hit by the tick. */
static unsigned int iterations(size_t len)
{
	if (len <= KIB64)
		return 32;
	if (len <= HUGE)
		return 16;
	if (len <= 8 * HUGE)
		return 4;
	return len <= GIB / 4 ? 2 : 1;
}

/* ------------------------------------------------------------------- memory */

enum fill { FILL_ANON, FILL_SPLIT, FILL_RUNS, FILL_MIXED };

static const struct kind {
	const char	*name;
	size_t		unit;		/* what is allocated at once */
	int		flags;		/* of mmap() */
	enum fill	fill;
} kinds[] = {
	{ "4k-scattered", PAGE },
	{ "4k-contig", HUGE, 0, FILL_SPLIT },
	{ "runs-1-8", HUGE, 0, FILL_RUNS },
	{ "16k", 4 * PAGE },
	{ "64k", KIB64 },
	{ "256k", 4 * KIB64 },
	{ "thp", HUGE },
	{ "hugetlb-2m", HUGE, MAP_HUGETLB | 21 << MAP_HUGE_SHIFT },
	{ "hugetlb-1g", GIB, MAP_HUGETLB | 30 << MAP_HUGE_SHIFT },
	{ "mixed", 2 * HUGE, 0, FILL_MIXED },
};

static const struct kind *kind_of(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

/* Physical page numbers of [p, p + len), by page. */
static uint64_t *pfns_of(const char *p, size_t len)
{
	size_t bytes = len / PAGE * sizeof(uint64_t), i;
	uint64_t *pfns = malloc(bytes);
	int fd = open("/proc/self/pagemap", O_RDONLY);
	ssize_t n = -1;

	if (fd >= 0 && pfns)
		n = pread(fd, pfns, bytes, (uintptr_t)p / PAGE * sizeof(*pfns));
	if (fd >= 0)
		close(fd);
	if (n != (ssize_t)bytes) {
		free(pfns);
		return NULL;
	}
	for (i = 0; i < len / PAGE; i++)
		pfns[i] = pfns[i] >> 63 ? pfns[i] & ((1ULL << 55) - 1) : 0;
	return pfns;
}

static size_t count_runs(const char *p, size_t len)
{
	uint64_t *pfns = pfns_of(p, len);
	size_t i, runs = 1;

	if (!pfns)
		return 0;
	for (i = 1; i < len / PAGE; i++)
		runs += pfns[i] != pfns[i - 1] + 1;
	free(pfns);
	return runs;
}

/* Which sizes of folios anonymous memory gets from now on: a mask of bytes. */
static int folios(size_t sizes)
{
	char path[128];
	size_t kib;
	int ret = 0;

	write_file(THP "khugepaged/defrag", "0");
	for (kib = 16; kib <= HUGE >> 10; kib *= 2) {
		snprintf(path, sizeof(path), THP "hugepages-%zukB/enabled",
			 kib);
		ret = write_file(path, sizes & kib << 10 ? "always" : "never");
		if (ret)
			break;
	}
	return ret;
}

/* Each @unit once; neighbours come far from each other. */
static void touch_scattered(char *p, size_t len, size_t unit)
{
	size_t n = len / unit, i, at = 0;
	/* Odd, hence prime to a power of two; no neighbour is a step away. */
	size_t step = n > 8 ? (n / 8 * 3) | 5 : n > 4 ? 3 : 1;

	for (i = 0; i < n; i++) {
		p[at * unit] = 1;
		at = (at + step) & (n - 1);
	}
}

/*
 * Units that continue the one before them, because the allocator had a gap just
 * there, are replaced: what it hands out right after the release is not used.
 */
static int replace_neighbours(const struct kind *k, char *p, char *spare,
			      size_t len, size_t *used)
{
	uint64_t *pfns = pfns_of(p, len);
	size_t pages = k->unit / PAGE, i, bad = 0;

	if (!pfns)
		return -1;
	for (i = pages; i < len / PAGE && *used < len; i += pages) {
		if (pfns[i] != pfns[i - 1] + 1)
			continue;
		bad++;
		madvise(p + i * PAGE, k->unit, MADV_DONTNEED);
		spare[*used] = 1;
		*used += k->unit;
		p[i * PAGE] = 1;
	}
	free(pfns);
	return bad;
}

/* Units of this kind, no two of them contiguous. */
static int fill_scattered(const struct kind *k, char *p, size_t len)
{
	char *spare = mem_reserve(len, k->unit);
	size_t used = 0;
	int turn, bad = 1;

	if (spare != MAP_FAILED)
		spare = mmap(spare, len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			     MAP_FIXED_NOREPLACE | k->flags, -1, 0);
	if (spare == MAP_FAILED)
		return -1;
	if (k->unit == PAGE) {
		madvise(p, len, MADV_NOHUGEPAGE);
		madvise(spare, len, MADV_NOHUGEPAGE);
	}
	touch_scattered(p, len, k->unit);
	for (turn = 0; bad > 0 && turn < 16; turn++)
		bad = replace_neighbours(k, p, spare, len, &used);
	munmap(spare, len);
	return bad ? -1 : 0;
}

/* Huge pages that are split: small folios, one after the other. */
static int split(char *p, size_t len)
{
	char cmd[96];
	size_t i;
	int ret;

	/* A page of zeroes would become the zero page. */
	for (i = 0; i < len; i += PAGE)
		p[i] = 1;
	snprintf(cmd, sizeof(cmd), "%d,0x%lx,0x%lx", getpid(), (uintptr_t)p,
		 (uintptr_t)p + len);
	ret = write_file("/sys/kernel/debug/split_huge_pages", cmd);
	madvise(p, len, MADV_NOHUGEPAGE);
	return ret;
}

/*
 * What fragmented memory looks like: runs of 1 to 8 pages, no two of them
 * contiguous. Of small folios, one after the other, some are replaced; the page
 * that was there goes to @spare, so that it does not come back.
 */
static int fragment(char *p, size_t len)
{
	char *spare = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			   MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint32_t seed = 1;
	size_t i = 0, n;

	if (spare == MAP_FAILED)
		return -1;
	madvise(spare, len, MADV_NOHUGEPAGE);
	for (n = 0; ; n++) {
		seed = seed * 1664525 + 1013904223;
		i += 1 + (seed >> 29);
		if (i >= len / PAGE)
			break;
		madvise(p + i * PAGE, PAGE, MADV_DONTNEED);
		spare[n * PAGE] = 1;
		p[i++ * PAGE] = 1;
	}
	munmap(spare, len);
	return 0;
}

/* 2 MiB in one, then 1 MiB in small pages, then 1 MiB in 64 KiB. */
static int fill_mixed(char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += 2 * HUGE) {
		p[i] = 1;
		if (fill_scattered(kind_of("4k-scattered"), p + i + HUGE,
				   HUGE / 2) ||
		    fill_scattered(kind_of("64k"), p + i + HUGE * 3 / 2,
				   HUGE / 2))
			return -1;
	}
	return 0;
}

static int memory_fill(const struct kind *k, char *p, size_t len)
{
	if (folios(k->fill == FILL_MIXED ? HUGE | KIB64 : k->unit))
		return -1;
	if (k->fill == FILL_MIXED)
		return fill_mixed(p, len);
	/* There is one of them. */
	if (k->unit == GIB) {
		*p = 1;
		return 0;
	}
	if (fill_scattered(k, p, len))
		return -1;
	if (k->fill == FILL_ANON)
		return 0;
	if (split(p, len))
		return -1;
	return k->fill == FILL_RUNS ? fragment(p, len) : 0;
}

/* Is it what its name says? Figures repeat only if it is. */
static bool memory_is(const struct kind *k, const struct memory *m)
{
	size_t units = (m->len + k->unit - 1) / k->unit;

	/* Every other run is one page, the others have four and a half. */
	if (k->fill == FILL_RUNS)
		return m->runs > m->len / PAGE / 3 && m->runs < m->len / PAGE / 2;
	return k->fill == FILL_MIXED ? m->runs > units : m->runs == units;
}

static int memory_alloc(struct memory *m)
{
	const struct kind *k = kind_of(m->name);
	size_t align;

	if (!k)
		return fail(m, "memory", "unknown kind"), -1;
	m->mapped = (m->len + k->unit - 1) & ~(k->unit - 1);
	align = m->mapped >= GIB ? GIB : HUGE;
	m->base = mem_reserve(m->mapped, align);
	if (m->base == MAP_FAILED)
		return fail(m, "mmap", strerror(errno)), -1;
	m->base = mmap(m->base, m->mapped, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
		       k->flags, -1, 0);
	if (m->base == MAP_FAILED)
		return fail(m, "mmap", strerror(errno)), -1;
	if (memory_fill(k, m->base, m->mapped)) {
		fail(m, "memory", "cannot be made");
	} else {
		m->runs = count_runs(m->base, m->len);
		if (memory_is(k, m))
			return 0;
		fail(m, "memory", "has other runs than its name says");
		printf("# %zu runs in %zu pages\n", m->runs, m->len / PAGE);
	}
	munmap(m->base, m->mapped);
	return -1;
}

/* Pages may have moved meanwhile: then the figures are of something else. */
static void memory_free(struct memory *m)
{
	if (count_runs(m->base, m->len) != m->runs)
		fail(m, "memory", "was moved while it was measured");
	munmap(m->base, m->mapped);
}

/* ------------------------------------------------------------------- output */

static void print_u64(const char *name, uint64_t val)
{
	if (val == UNKNOWN)
		printf(", \"%s\": null", name);
	else
		printf(", \"%s\": %llu", name, (unsigned long long)val);
}

static void print_s64(const char *name, int64_t val)
{
	if (val == NONE)
		printf(", \"%s\": null", name);
	else
		printf(", \"%s\": %lld", name, (long long)val);
}

static void print(const struct memory *m, const struct result *r)
{
	printf("{\"path\": \"%s\", \"memory\": \"%s\", \"bytes\": %zu, \"runs\": %zu",
	       r->path, m->name, m->len, m->runs);
	print_s64("map_ns", r->map);
	print_s64("unmap_ns", r->unmap);
	print_s64("dirty_ns", r->dirty);
	print_u64("links", r->links);
	print_u64("syncs", r->syncs);
	print_u64("flushes", r->flushes);
	print_u64("metadata", r->metadata);
	print_u64("scratch", r->scratch);
	printf("}\n");
}

/* ------------------------------------------------------------- test driver */

static const struct path {
	const char	*name;
	unsigned int	path;
	enum { NO_DIRTY, PINNED, MIRRORED } dirty;
	const char	*memory;	/* only for this kind */
	size_t		part;
} paths[] = {
	{ "ours-pinned", GUP_RANGE_BENCH_PINNED, PINNED },
	{ "ours-mirrored", GUP_RANGE_BENCH_MIRRORED, MIRRORED },
	{ "rdma-umem", GUP_RANGE_BENCH_RDMA_UMEM, PINNED },
	{ "rdma-odp", GUP_RANGE_BENCH_RDMA_ODP, MIRRORED },
	{ "ib_umem", GUP_RANGE_BENCH_IB_UMEM, PINNED },
	{ "xdp", GUP_RANGE_BENCH_XDP, PINNED },
	{ "odp", GUP_RANGE_BENCH_ODP, MIRRORED },
	{ "gpusvm", GUP_RANGE_BENCH_GPUSVM },
	{ "pin_user_pages_fast", GUP_RANGE_BENCH_PIN },
	{ "hmm_range_fault", GUP_RANGE_BENCH_HMM },
	{ "iommu_map", GUP_RANGE_BENCH_IOMMU },
	{ "dma_iova_link", GUP_RANGE_BENCH_LINK },
	{ "ours-fault-4k", GUP_RANGE_BENCH_FAULT, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "ours-fault-2m", GUP_RANGE_BENCH_FAULT, NO_DIRTY,
	  "thp", HUGE },
	{ "ours-invalidate-4k", GUP_RANGE_BENCH_INVALIDATE, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "ours-invalidate-2m", GUP_RANGE_BENCH_INVALIDATE, NO_DIRTY,
	  "thp", HUGE },
	{ "rdma-fault-4k", GUP_RANGE_BENCH_RDMA_FAULT, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "rdma-invalidate-4k", GUP_RANGE_BENCH_RDMA_INVALIDATE, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "rdma-fault-2m", GUP_RANGE_BENCH_RDMA_FAULT, NO_DIRTY,
	  "thp", HUGE },
	{ "rdma-invalidate-2m", GUP_RANGE_BENCH_RDMA_INVALIDATE, NO_DIRTY,
	  "thp", HUGE },
	{ "odp-fault-4k", GUP_RANGE_BENCH_ODP_FAULT, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "odp-invalidate-4k", GUP_RANGE_BENCH_ODP_INVALIDATE, NO_DIRTY,
	  "4k-scattered", PAGE },
	{ "odp-fault-2m", GUP_RANGE_BENCH_ODP_FAULT, NO_DIRTY,
	  "thp", HUGE },
	{ "odp-invalidate-2m", GUP_RANGE_BENCH_ODP_INVALIDATE, NO_DIRTY,
	  "thp", HUGE },
};

static int bench(int fd, const struct path *path, const struct memory *m,
		 unsigned int flags, struct gup_range_bench *req)
{
	*req = (struct gup_range_bench){
		.path = path->path,
		.flags = flags,
		.iterations = iterations(m->len),
		.va = (uintptr_t)m->base,
		.len = m->len,
		.offset = path->part ? m->len / 2 : 0,
		.part = path->part,
	};
	return edu_ioctl(fd, GUP_RANGE_BENCH_RUN, req);
}

/*
 * In-tree code dirties what it unpins, so that this is part of a pinned unmap;
 * of a mirrored one it is not.
 */
static void measure(int fd, const struct path *path, const struct memory *m)
{
	struct gup_range_bench req, ro;
	struct result r = { .path = path->name, .dirty = NONE };
	int ret;

	ret = bench(fd, path, m, GUP_RANGE_BENCH_WRITE |
		    GUP_RANGE_BENCH_MEMORY, &req);
	if (ret == -EOPNOTSUPP)
		return;
	if (!ret && path->dirty)
		ret = bench(fd, path, m, 0, &ro);
	if (ret) {
		fail(m, path->name, strerror(-ret));
		return;
	}
	r.map = req.map_ns;
	r.unmap = req.unmap_ns;
	if (path->dirty)
		r.dirty = (int64_t)(req.unmap_ns - ro.unmap_ns);
	if (path->dirty == MIRRORED)
		r.unmap = ro.unmap_ns;
	r.links = req.links;
	r.syncs = req.syncs;
	r.flushes = req.flushes;
	r.metadata = req.metadata;
	r.scratch = req.scratch;
	print(m, &r);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void keep_min(int64_t *best, uint64_t ns)
{
	if (*best == NONE || (int64_t)ns < *best)
		*best = ns;
}

/* What a user of the driver waits for, as of the other engines. */
static void measure_ioctl(int fd, const struct memory *m, const char *name,
			  unsigned int flags)
{
	struct gup_range_edu_map bad = { .size = sizeof(bad) };
	struct result r = { name, NONE, NONE, NONE, UNKNOWN, UNKNOWN, UNKNOWN,
			    UNKNOWN, UNKNOWN };
	int64_t empty = NONE;
	unsigned int i;
	uint64_t t;
	int h;

	for (i = 0; i <= iterations(m->len); i++) {
		t = now();
		edu_ioctl(fd, GUP_RANGE_EDU_MAP, &bad);
		keep_min(&empty, now() - t);
		t = now();
		h = edu_map(fd, m->base, m->len,
			    flags | GUP_RANGE_EDU_MAP_WRITE);
		t = now() - t;
		if (h < 0)
			return fail(m, name, strerror(-h));
		keep_min(&r.map, t);
		t = now();
		edu_unmap(fd, h, m->len);
		keep_min(&r.unmap, now() - t);
	}
	r.map -= empty;
	r.unmap -= empty;
	print(m, &r);
}

/* The latency of a part is measured at one size, of the memory it is of. */
static bool path_wants(const struct path *path, const struct memory *m)
{
	return !path->memory ||
	       (m->len == 8 * HUGE && !strcmp(path->memory, m->name));
}

static int kernel(struct memory *m, int nr)
{
	int fd = open(BENCH_DEV, O_RDWR), edu = open(EDU_DEV, O_RDWR);
	size_t i;

	if (fd < 0)
		return fail(m, BENCH_DEV, strerror(errno)), 1;
	for (; nr--; m++) {
		if (memory_alloc(m))
			continue;
		for (i = 0; i < sizeof(paths) / sizeof(*paths); i++)
			if (path_wants(&paths[i], m))
				measure(fd, &paths[i], m);
		/* The unpatched kernel has no test driver. */
		if (edu >= 0 && m->len == PAGE) {
			measure_ioctl(edu, m, "ours-pinned-ioctl", 0);
			measure_ioctl(edu, m, "ours-mirrored-ioctl",
				      GUP_RANGE_EDU_MAP_MIRROR);
		}
		memory_free(m);
	}
	close(edu);
	close(fd);
	return failures;
}

/* ------------------------------------------------------------------ engines */

/* An address that is equal to the user's modulo a gigabyte. */
static uint64_t iova_of(const struct memory *m)
{
	return 4 * GIB + ((uintptr_t)m->base & (GIB - 1));
}

struct engine {
	const char	*name;
	int		(*open)(struct engine *e);
	int		(*map)(struct engine *e, const struct memory *m);
	int		(*unmap)(struct engine *e, const struct memory *m);
	int		(*empty)(struct engine *e);
	void		(*close)(struct engine *e);
	int		fd, device, group;
	uint32_t	ioas;
};

static int open_first(const char *dir, const char *prefix)
{
	struct dirent *d;
	char path[300];
	int fd = -1;
	DIR *dp = opendir(dir);

	while (dp && fd < 0 && (d = readdir(dp))) {
		if (strncmp(d->d_name, prefix, strlen(prefix)) ||
		    !strchr("0123456789", d->d_name[strlen(prefix)]))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		fd = open(path, O_RDWR);
	}
	if (dp)
		closedir(dp);
	return fd;
}

static int iommufd_open(struct engine *e)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	e->fd = open("/dev/iommu", O_RDWR);
	e->device = open_first("/dev/vfio/devices", "vfio");
	bind.iommufd = e->fd;
	if (e->fd < 0 || e->device < 0 ||
	    ioctl(e->device, VFIO_DEVICE_BIND_IOMMUFD, &bind) ||
	    ioctl(e->fd, IOMMU_IOAS_ALLOC, &alloc))
		return -errno;
	e->ioas = alloc.out_ioas_id;
	attach.pt_id = e->ioas;
	return ioctl(e->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) ?
	       -errno : 0;
}

static int iommufd_map(struct engine *e, const struct memory *m)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = e->ioas,
		.user_va = (uintptr_t)m->base,
		.length = m->len,
		.iova = iova_of(m),
	};

	return ioctl(e->fd, IOMMU_IOAS_MAP, &map) ? -errno : 0;
}

static int iommufd_unmap(struct engine *e, const struct memory *m)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = e->ioas,
		.iova = iova_of(m),
		.length = m->len,
	};

	return ioctl(e->fd, IOMMU_IOAS_UNMAP, &unmap) ? -errno : 0;
}

/* Comes as far as the length, which is bad. */
static int iommufd_empty(struct engine *e)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = e->ioas,
	};

	return ioctl(e->fd, IOMMU_IOAS_MAP, &map);
}

static void engine_close(struct engine *e)
{
	if (e->device >= 0)
		close(e->device);
	if (e->group >= 0)
		close(e->group);
	if (e->fd >= 0)
		close(e->fd);
}

static int type1_open(struct engine *e)
{
	e->fd = open("/dev/vfio/vfio", O_RDWR);
	e->group = open_first("/dev/vfio", "");
	if (e->fd < 0 || e->group < 0 ||
	    ioctl(e->group, VFIO_GROUP_SET_CONTAINER, &e->fd) ||
	    ioctl(e->fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -errno;
	return 0;
}

static int type1_map(struct engine *e, const struct memory *m)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)m->base,
		.iova = iova_of(m),
		.size = m->len,
	};

	return ioctl(e->fd, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int type1_unmap(struct engine *e, const struct memory *m)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova_of(m),
		.size = m->len,
	};

	return ioctl(e->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
}

static int type1_empty(struct engine *e)
{
	struct vfio_iommu_type1_dma_map map = {};

	return ioctl(e->fd, VFIO_IOMMU_MAP_DMA, &map);
}

static struct engine engine[] = {
	{ "iommufd", iommufd_open, iommufd_map, iommufd_unmap, iommufd_empty,
	  engine_close, -1, -1, -1 },
	{ "vfio-type1", type1_open, type1_map, type1_unmap, type1_empty,
	  engine_close, -1, -1, -1 },
};

static void measure_engine(struct engine *e, const struct memory *m)
{
	struct result r = { e->name, NONE, NONE, NONE, UNKNOWN, UNKNOWN,
			    UNKNOWN, UNKNOWN, UNKNOWN };
	int64_t empty = NONE;
	unsigned int i;
	uint64_t t;
	int ret;

	for (i = 0; i <= iterations(m->len); i++) {
		t = now();
		e->empty(e);
		keep_min(&empty, now() - t);
		t = now();
		ret = e->map(e, m);
		t = now() - t;
		if (ret)
			return fail(m, e->name, strerror(-ret));
		keep_min(&r.map, t);
		t = now();
		ret = e->unmap(e, m);
		t = now() - t;
		if (ret)
			return fail(m, e->name, strerror(-ret));
		keep_min(&r.unmap, t);
	}
	r.map -= empty;
	r.unmap -= empty;
	print(m, &r);
}

static int engines(struct memory *m, int nr)
{
	size_t n = sizeof(engine) / sizeof(*engine), i;
	int ret;

	for (i = 0; i < n; i++) {
		struct memory *at = m;

		ret = engine[i].open(&engine[i]);
		if (ret)
			fail(m, engine[i].name, strerror(-ret));
		for (; !ret && at < m + nr; at++) {
			if (memory_alloc(at))
				continue;
			measure_engine(&engine[i], at);
			memory_free(at);
		}
		engine[i].close(&engine[i]);
	}
	return failures;
}

/* MEMORY:BYTES, with K, M or G behind the number. */
static int parse(struct memory *m, char *arg)
{
	char *colon = strchr(arg, ':'), *unit;

	if (!colon)
		return -1;
	*colon = 0;
	*m = (struct memory){ .name = arg,
			      .len = strtoul(colon + 1, &unit, 0) };
	if (*unit == 'K')
		m->len <<= 10;
	else if (*unit == 'M')
		m->len <<= 20;
	else if (*unit == 'G')
		m->len <<= 30;
	return m->len && !(m->len & (PAGE - 1)) ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	struct memory m[64] = {};
	int i, nr = argc - 2;

	setvbuf(stdout, NULL, _IOLBF, 0);
	setrlimit(RLIMIT_MEMLOCK, &all);
	/* It would make scattered memory contiguous. */
	write_file("/proc/sys/vm/compaction_proactiveness", "0");
	if (nr > 0 && nr <= 64) {
		for (i = 0; i < nr; i++)
			if (parse(&m[i], argv[i + 2]))
				break;
		if (i == nr && !strcmp(argv[1], "kernel"))
			return kernel(m, nr) ? 1 : 0;
		if (i == nr && !strcmp(argv[1], "user"))
			return engines(m, nr) ? 1 : 0;
	}
	fprintf(stderr, "usage: gup_range_bench kernel|user MEMORY:BYTES...\n");
	return 2;
}
