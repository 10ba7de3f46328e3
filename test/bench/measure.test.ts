import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { formatResult, median, percentile, type Result } from '../../bench/measure.ts'
import { plotConvergence } from '../../bench/plot.ts'

const RESULT: Result = {
  bench: 'convergence',
  date: '2026-11-26T12:00:00.000Z',
  machine: { cpu: 'a', cores: 2, memoryMiB: 1 },
  kernel: '6.18',
  node: '24',
  tweed: '0.1.0',
  commit: 'abc',
  peer: null,
  rows: [
    { case: 'static, 100 leases', candidate: 'tweed', unit: 'ms', samples: [150, 140, 170] },
    { case: 'static, 10,000 leases', candidate: 'tweed', unit: 'ms', samples: [400] },
    { case: 'l3miss, 100 leases', candidate: 'floor', unit: 'ms', samples: [0.25, 0.35] },
    { case: 'l3miss, 10,000 leases', candidate: 'floor', unit: 'ms', samples: [25] },
  ],
  claims: [
    { what: 'small', measured: 1.5, bound: 2 },
    { what: 'large', measured: 1234.5, bound: 2 },
    { what: 'unknown', measured: Number.NaN, bound: 2 },
    { what: 'beside', measured: 3 },
  ],
}

test('the middle, and the share below', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  assert.equal(percentile([5, 1, 4, 2, 3], 0.5), 3)
  assert.equal(percentile([1, 2, 3, 4], 0.99), 4)
  assert.equal(percentile([7], 0), 7)
  assert.ok(Number.isNaN(median([])))
})

test('a table says median, least and most; a claim whether it is reached, where it has a bound', () => {
  const lines = stripVTControlCharacters(formatResult(RESULT)).split('\n')
  assert.ok(lines.some((line) => /^static, 100 leases +tweed +150 +140 +170 +ms +3$/.test(line)))
  assert.ok(lines.some((line) => /^l3miss, 100 leases +floor +0\.3 +0\.25 +0\.35 +ms +2$/.test(line)))
  assert.ok(lines.some((line) => /^✓ +small +1\.5 +2$/.test(line)))
  assert.ok(lines.some((line) => /^✗ +large +1235 +2$/.test(line)))
  assert.ok(lines.some((line) => /^✗ +unknown +– +2$/.test(line)))
  assert.ok(lines.some((line) => /^ +beside +3 +–$/.test(line)))
})

test('the picture has a line for each candidate in each mode, on scales of powers of ten', () => {
  const svg = plotConvergence(RESULT)
  const lines = [...svg.matchAll(/<polyline points="([^"]+)"[^>]*?( stroke-dasharray="6 4")?\/>/g)]
  assert.deepEqual(
    lines.map(([, points, dashed]) => [points?.split(' ').length, dashed !== undefined]),
    [
      [2, false],
      [2, true],
    ],
  )
  // From 100 to 10,000 is the whole width; 0.1 to 1,000 ms the whole height, in which 150 ms is above 0.3.
  const [[, first = ''] = [], [, second = ''] = []] = lines
  assert.match(first, /^70,.* 580,/)
  assert.ok(Number(first.split(' ')[0]?.split(',')[1]) < Number(second.split(' ')[0]?.split(',')[1]))
  for (const text of ['tweed, static', 'floor, L3 miss', '10,000', '0.1'])
    assert.ok(svg.includes(`>${text}<`), text)
})
