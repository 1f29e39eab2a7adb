// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the bench needs on the unpatched kernel: a driver for the device, and no
 * paths of ours. lab/bench copies it to drivers/misc of a tree of the base,
 * beside gup_range_bench.c.
 */
#include <linux/module.h>
#include <linux/pci.h>

#include "gup_range_bench.h"

const struct bench_path gup_range_bench_ours[GUP_RANGE_BENCH_PATHS];

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int ret;

	ret = pcim_enable_device(pdev);
	if (!ret)
		ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (!ret)
		pci_set_master(pdev);
	return ret;
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};

static struct pci_driver edu_driver = {
	.name		= "gup_range_edu",
	.id_table	= edu_ids,
	.probe		= edu_probe,
};
builtin_pci_driver(edu_driver);
