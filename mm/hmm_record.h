/* SPDX-License-Identifier: GPL-2.0-only */
/* What is mapped of a mirrored range, as bits per page: mm/hmm_record.c. */
#ifndef _MM_HMM_RECORD_H
#define _MM_HMM_RECORD_H

#include <linux/gup_range.h>
#include <linux/pgtable.h>
#include <linux/types.h>

/**
 * struct hmm_span - pages that are mapped side by side, with the same rights
 * @start: user address of the first one
 * @end: user address after the last one
 * @pfn: without an IOMMU, of the first one; the others follow
 * @write: may the device write there?
 */
struct hmm_span {
	unsigned long	start;
	unsigned long	end;
	unsigned long	pfn;
	bool		write;
};

void hmm_record_init(struct hmm_range_map *map);
void hmm_record_destroy(struct hmm_range_map *map);
size_t hmm_record_bytes(struct hmm_range_map *map);

int hmm_record_reserve(struct hmm_range_map *map, unsigned long va,
		       unsigned long end, const struct phys_vec *vec,
		       unsigned int nr);
bool hmm_record_reserved(struct hmm_range_map *map, unsigned long va,
			 unsigned long end, const struct phys_vec *vec,
			 unsigned int nr);
void hmm_record_add(struct hmm_range_map *map, unsigned long va,
		    unsigned long end, const struct phys_vec *vec,
		    unsigned int nr, bool write);
bool hmm_record_set_write(struct hmm_range_map *map, unsigned long va,
			  unsigned long end);
bool hmm_record_is_read_only_block(struct hmm_range_map *map,
				   unsigned long va);
void hmm_record_erase(struct hmm_range_map *map, unsigned long va,
		      unsigned long end, bool keep);

bool hmm_record_has_room(struct hmm_range_map *map, unsigned long va,
			 unsigned long end);
bool hmm_record_any(struct hmm_range_map *map, unsigned long va,
		    unsigned long end);
bool hmm_record_next(struct hmm_range_map *map, unsigned long va,
		     unsigned long end, struct hmm_span *span);
unsigned long hmm_record_first_hole(struct hmm_range_map *map, unsigned long va,
				    unsigned long end, bool write);
unsigned long hmm_record_unit_start(struct hmm_range_map *map, unsigned long va);
unsigned long hmm_record_unit_end(struct hmm_range_map *map, unsigned long va);
unsigned long hmm_record_portion(struct hmm_range_map *map, unsigned long va,
				 unsigned long max);

#endif /* _MM_HMM_RECORD_H */
