/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM gup_range

#if !defined(_TRACE_GUP_RANGE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_GUP_RANGE_H

#include <linux/gup_range.h>
#include <linux/hmm.h>
#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(gup_range_pages,
		    TP_PROTO(const struct gup_range *range, int ret),
		    TP_ARGS(range, ret),
		    TP_STRUCT__entry(
			    __field(unsigned long, start)
			    __field(unsigned long, end)
			    __field(unsigned long, runs)
			    __field(unsigned int, flags)
			    __field(int, ret)
		    ),
		    TP_fast_assign(
			    __entry->start = range->start;
			    __entry->end = range->end;
			    __entry->runs = range->runs.nr;
			    __entry->flags = range->flags;
			    __entry->ret = ret;
		    ),
		    TP_printk("va=%#lx-%#lx runs=%lu flags=%#x ret=%d", __entry->start,
			      __entry->end, __entry->runs, __entry->flags, __entry->ret)
);

DEFINE_EVENT(gup_range_pages, gup_range_pin,
	     TP_PROTO(const struct gup_range *range, int ret),
	     TP_ARGS(range, ret));

DEFINE_EVENT(gup_range_pages, gup_range_unpin,
	     TP_PROTO(const struct gup_range *range, int ret),
	     TP_ARGS(range, ret));

DECLARE_EVENT_CLASS(gup_range_dma,
		    TP_PROTO(const struct gup_range *range,
			     const struct gup_range_map *map, int ret),
		    TP_ARGS(range, map, ret),
		    TP_STRUCT__entry(
			    __string(dev, dev_name(map->dev))
			    __field(unsigned long, start)
			    __field(unsigned long, end)
			    __field(unsigned long, runs)
			    __field(u64, iova)
			    __field(int, ret)
		    ),
		    TP_fast_assign(
			    __assign_str(dev);
			    __entry->start = range->start;
			    __entry->end = range->end;
			    __entry->runs = range->runs.nr;
			    __entry->iova = map->state.addr ?
					    map->state.addr + map->slack : 0;
			    __entry->ret = ret;
		    ),
		    TP_printk("dev=%s va=%#lx-%#lx runs=%lu iova=%#llx ret=%d",
			      __get_str(dev), __entry->start, __entry->end,
			      __entry->runs, __entry->iova, __entry->ret)
);

DEFINE_EVENT(gup_range_dma, gup_range_map,
	     TP_PROTO(const struct gup_range *range,
		      const struct gup_range_map *map, int ret),
	     TP_ARGS(range, map, ret));

DEFINE_EVENT(gup_range_dma, gup_range_unmap,
	     TP_PROTO(const struct gup_range *range,
		      const struct gup_range_map *map, int ret),
	     TP_ARGS(range, map, ret));

DECLARE_EVENT_CLASS(hmm_range_dma,
		    TP_PROTO(const struct hmm_range_map *map, unsigned long start,
			     unsigned long end, int ret),
		    TP_ARGS(map, start, end, ret),
		    TP_STRUCT__entry(
			    __string(dev, map->base.dev ?
					  dev_name(map->base.dev) : "none")
			    __field(unsigned long, start)
			    __field(unsigned long, end)
			    __field(unsigned long, mapped)
			    __field(int, ret)
		    ),
		    TP_fast_assign(
			    __assign_str(dev);
			    __entry->start = start;
			    __entry->end = end;
			    __entry->mapped = map->nr_mapped;
			    __entry->ret = ret;
		    ),
		    TP_printk("dev=%s va=%#lx-%#lx pages=%lu ret=%d",
			      __get_str(dev), __entry->start, __entry->end,
			      __entry->mapped, __entry->ret)
);

DEFINE_EVENT(hmm_range_dma, hmm_range_map,
	     TP_PROTO(const struct hmm_range_map *map, unsigned long start,
		      unsigned long end, int ret),
	     TP_ARGS(map, start, end, ret));

DEFINE_EVENT(hmm_range_dma, hmm_range_invalidate,
	     TP_PROTO(const struct hmm_range_map *map, unsigned long start,
		      unsigned long end, int ret),
	     TP_ARGS(map, start, end, ret));

TRACE_EVENT(hmm_range_retry,
	    TP_PROTO(const struct hmm_range *range),
	    TP_ARGS(range),
	    TP_STRUCT__entry(
		    __field(unsigned long, start)
		    __field(unsigned long, end)
		    __field(unsigned long, seq)
	    ),
	    TP_fast_assign(
		    __entry->start = range->start;
		    __entry->end = range->end;
		    __entry->seq = range->notifier_seq;
	    ),
	    TP_printk("va=%#lx-%#lx seq=%lu", __entry->start, __entry->end,
		      __entry->seq)
);

#endif /* _TRACE_GUP_RANGE_H */

#include <trace/define_trace.h>
