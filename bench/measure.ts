/** Samples: what is said of them, and where a result is kept. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { basename } from 'node:path'
import { styleText } from 'node:util'
import { formatTable } from '../src/cli/table.ts'
import { VERSION } from '../src/version.ts'

/** The samples of one candidate in one case, in the order in which they were taken. */
export interface Row {
  /** What was asked of it: `static, 10,000 leases`. */
  readonly case: string
  /** `tweed`, `bare Node`, `floor`, `etcdctl get`, `peer` … */
  readonly candidate: string
  /** `ms`, `MiB`, `Gbit/s` … */
  readonly unit: string
  readonly samples: readonly number[]
}

/** Something that is to be reached, with what was measured: good when it is at most the bound, and told only without one. */
export interface Claim {
  readonly what: string
  readonly measured: number
  readonly bound?: number
}

export interface Measured {
  readonly rows: readonly Row[]
  readonly claims: readonly Claim[]
}

/** What is kept in `results/`. */
export interface Result extends Measured {
  readonly bench: string
  /** ISO 8601. */
  readonly date: string
  readonly machine: { readonly cpu: string; readonly cores: number; readonly memoryMiB: number }
  readonly kernel: string
  readonly node: string
  readonly tweed: string
  readonly commit: string
  /** File name of the binary that `--peer` named. */
  readonly peer: string | null
}

/** The share `p` (0 to 1) of the samples is at most this. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(p * sorted.length) - 1))] ?? Number.NaN
}

/** The middle one, or the mean of the two in the middle. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** The median of a candidate in a case; NaN when it did not take part. */
export function medianOf(rows: readonly Row[], name: string, candidate: string): number {
  return median(rows.find((row) => row.case === name && row.candidate === candidate)?.samples ?? [])
}

/** @param peer Path of the binary to compare with. */
export function resultOf(bench: string, measured: Measured, peer: string | undefined): Result {
  const [cpu] = cpus()
  return {
    bench,
    date: new Date().toISOString(),
    machine: {
      cpu: cpu?.model ?? 'unknown',
      cores: cpus().length,
      memoryMiB: Math.round(totalmem() / 2 ** 20),
    },
    kernel: release(),
    node: process.versions.node,
    tweed: VERSION,
    commit: commit(),
    peer: peer === undefined ? null : basename(peer),
    ...measured,
  }
}

/** In full: figures are for comparing. */
export function saveResult(result: Result): void {
  const folder = new URL('results/', import.meta.url)
  mkdirSync(folder, { recursive: true })
  writeFileSync(new URL(`${result.bench}.json`, folder), `${JSON.stringify(result, round, 1)}\n`)
}

export function formatResult({ bench, rows, claims }: Result): string {
  const head = ['CASE', 'CANDIDATE', 'MEDIAN', 'MIN', 'MAX', 'UNIT', 'RUNS']
  const lines = rows.map(({ case: name, candidate, unit, samples }) => {
    const figures = [median(samples), Math.min(...samples), Math.max(...samples)].map(figure)
    return [name, candidate, ...figures, unit, `${samples.length}`]
  })
  const table = `${styleText('bold', bench)}\n${formatTable(head, lines)}\n`
  if (claims.length === 0) return table
  const judged = claims.map(({ what, measured, bound }) => {
    if (bound === undefined) return ['', what, figure(measured), '–']
    const mark = measured <= bound ? styleText('green', '✓') : styleText('red', '✗')
    return [mark, what, figure(measured), figure(bound)]
  })
  return `${table}\n${formatTable(['', 'TO REACH', 'MEASURED', 'AT MOST'], judged)}\n`
}

/** Three digits that mean something. */
function figure(value: number): string {
  if (!Number.isFinite(value)) return '–'
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)))
}

function round(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value
}

function commit(): string {
  const git = (...words: string[]): string =>
    execFileSync('git', words, { cwd: new URL('..', import.meta.url), encoding: 'utf8' }).trim()
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'native', 'bin') !== ''
    return `${git('rev-parse', '--short', 'HEAD')}${changed ? '-dirty' : ''}`
  } catch {
    return 'unknown'
  }
}
