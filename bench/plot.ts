/** A picture of a convergence: time over the number of leases, both in powers of ten. */

import { writeFileSync } from 'node:fs'
import { median, type Result } from './measure.ts'

export function plotConvergence(_result: Result): string {
  return String(median([]))
}

export function savePlot(svg: string): void {
  writeFileSync(new URL('results/convergence.svg', import.meta.url), svg)
}
