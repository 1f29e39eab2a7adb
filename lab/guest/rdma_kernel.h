/* SPDX-License-Identifier: GPL-2.0 */
#ifndef RDMA_KERNEL_H
#define RDMA_KERNEL_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* librxe and libsiw of rdma-core 44 have neither of these: ask the kernel itself. */
static int kernel_rereg(struct ibv_pd *pd, struct ibv_mr *mr, int flags, void *p,
			size_t len, int access)
{
	struct ib_uverbs_rereg_mr_resp resp;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_rereg_mr cmd;
	} c = {
		.hdr = { .command = IB_USER_VERBS_CMD_REREG_MR,
			 .in_words = sizeof(c) / 4,
			 .out_words = sizeof(resp) / 4 },
		.cmd = { .response = (uintptr_t)&resp,
			 .mr_handle = mr->handle, .flags = flags,
			 .start = (uintptr_t)p, .length = len,
			 .hca_va = (uintptr_t)p, .pd_handle = pd->handle,
			 .access_flags = access },
	};

	return write(pd->context->cmd_fd, &c, sizeof(c)) == sizeof(c) ? 0 : errno;
}

static int kernel_advise(struct ibv_pd *pd, int advice, int flags,
			 struct ibv_sge *sge)
{
	struct ib_uverbs_sge usge = { .addr = sge->addr, .length = sge->length,
				      .lkey = sge->lkey };
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[4];
	} c = {
		.hdr = { .length = sizeof(c), .object_id = UVERBS_OBJECT_MR,
			 .method_id = UVERBS_METHOD_ADVISE_MR, .num_attrs = 4,
			 .driver_id = RDMA_DRIVER_RXE },
		.attrs = {
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_PD_HANDLE,
			  .flags = UVERBS_ATTR_F_MANDATORY,
			  .data = pd->handle },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_ADVICE, .len = 8,
			  .flags = UVERBS_ATTR_F_MANDATORY, .data = advice },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_FLAGS, .len = 4,
			  .flags = UVERBS_ATTR_F_MANDATORY, .data = flags },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_SGE_LIST,
			  .len = sizeof(usge),
			  .flags = UVERBS_ATTR_F_MANDATORY,
			  .data = (uintptr_t)&usge },
		},
	};

	return ioctl(pd->context->cmd_fd, RDMA_VERBS_IOCTL, &c) ? errno : 0;
}

#endif
