/* SPDX-License-Identifier: GPL-2.0 */
/* Pin user pages and get physically contiguous spans: see mm/gup.c. */
#ifndef _LINUX_GUP_VECS_H
#define _LINUX_GUP_VECS_H

#include <linux/types.h>

struct mm_struct;

int pin_user_vecs(struct mm_struct *mm, unsigned long start,
		  unsigned long nr_pages, unsigned int gup_flags,
		  struct phys_vec *vecs, unsigned int *nr_vecs);
void unpin_user_vecs(const struct phys_vec *vecs, unsigned int nr,
		     bool make_dirty);

#endif /* _LINUX_GUP_VECS_H */
