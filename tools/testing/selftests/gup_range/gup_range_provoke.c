// SPDX-License-Identifier: GPL-2.0-only
/* Have the test driver misbehave, to see that the test machinery notices. */
#include "gup_range_util.h"

int main(int argc, char **argv)
{
	static const char * const names[] = {
		[GUP_RANGE_EDU_PROVOKE_WARN]	= "warn",
		[GUP_RANGE_EDU_PROVOKE_LOCKDEP]	= "lockdep",
		[GUP_RANGE_EDU_PROVOKE_LEAK]	= "leak",
		[GUP_RANGE_EDU_PROVOKE_STALE]	= "stale",
		[GUP_RANGE_EDU_PROVOKE_HANG]	= "hang",
		[GUP_RANGE_EDU_PROVOKE_UAF]	= "uaf",
		[GUP_RANGE_EDU_PROVOKE_ATOMIC]	= "atomic",
		[GUP_RANGE_EDU_PROVOKE_POISON]	= "poison",
		[GUP_RANGE_EDU_PROVOKE_DMA_DEBUG] = "dma-debug",
		NULL
	};
	struct gup_range_edu_provoke req = { .size = sizeof(req) };
	int fd = open(EDU_DEV, O_RDWR);
	size_t i;
	int ret;

	for (i = 0; argc == 2 && names[i]; i++) {
		if (strcmp(argv[1], names[i]))
			continue;
		req.what = i;
		ret = edu_ioctl(fd, GUP_RANGE_EDU_PROVOKE, &req);
		if (ret)
			fprintf(stderr, "%s: %s\n", EDU_DEV, strerror(-ret));
		return !!ret;
	}
	fprintf(stderr, "usage: %s", argv[0]);
	for (i = 0; names[i]; i++)
		fprintf(stderr, "%s%s", i ? "|" : " ", names[i]);
	fprintf(stderr, "\n");
	return 2;
}
