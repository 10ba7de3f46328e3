/** That the benches can be carried out, and find what they look for: what they measure is not judged here. */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Result } from '../../bench/measure.ts'

const MAIN = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))

async function bench(...words: readonly string[]): Promise<Result> {
  const args = ['--disable-warning=ExperimentalWarning', MAIN, ...words, '--quick', '--runs', '1', '--json']
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 120_000 })
  return JSON.parse(stdout) as Result
}

/** What was measured of the claims whose text matches; each must be reached. */
function reached({ claims }: Result, what: RegExp): void {
  const found = claims.filter((claim) => what.test(claim.what))
  assert.ok(found.length > 0)
  for (const { what: text, measured, bound } of found)
    assert.ok(bound !== undefined && measured <= bound, `${text}: ${measured}`)
}

describe('bench', { timeout: 600_000 }, () => {
  test('convergence: every candidate in every case, a peer among them', async () => {
    // tweed under flanneld's name takes flanneld's flags.
    const peer = fileURLToPath(new URL('../../bin/flanneld', import.meta.url))
    const { rows } = await bench('convergence', '--leases', '50', '--peer', peer)
    const candidates = ['tweed', 'bare Node', 'remembering Node', 'floor', 'etcdctl get']
    assert.deepEqual(
      rows.map((row) => `${row.case}: ${row.candidate}`),
      [
        ...[...candidates, 'peer'].map((name) => `static, 50 leases: ${name}`),
        ...candidates.map((name) => `l3miss, 50 leases: ${name}`),
      ],
    )
    for (const { samples } of rows) assert.ok(samples.length === 1 && samples.every((ms) => ms > 0))
  })

  test('event, drift, first-packet: what changed is seen in the kernel', async () => {
    for (const name of ['event', 'drift', 'first-packet']) {
      const { rows } = await bench(name)
      for (const row of rows) assert.ok(row.samples.every(Number.isFinite), `${name}: ${row.case}`)
    }
  })

  test('restart: no operation, no packet lost', async () => {
    reached(await bench('restart'), /operations|lost/)
  })

  test('misses: all are answered, also after an overrun', async () => {
    const result = await bench('misses')
    reached(result, /not answered/)
    reached(result, /runs without one/)
  })

  test('data-path and rest: figures for all of it', async () => {
    const { rows } = await bench('data-path')
    assert.equal(rows.length, 28)
    for (const row of rows)
      assert.ok(
        row.samples.every((figure) => figure > 0),
        `${row.case}: ${row.candidate}`,
      )
    const { rows: rest } = await bench('rest')
    assert.ok(
      rest.filter(({ unit }) => unit === 'MiB').every(({ samples }) => samples.every((mib) => mib > 10)),
    )
  })

  test('a bench that there is not, a number that is none: one line', async () => {
    await assert.rejects(bench('nothing'), /there is no bench nothing: convergence/)
    await assert.rejects(bench('convergence', '--leases', '0'), /whole number from 1 to 65000/)
  })
})
