import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIp } from '../address/ip.ts'
import { parseMac } from '../address/mac.ts'
import { parsePrefix } from '../address/prefix.ts'
import { type Entry, type Key, keyOf } from '../state.ts'
import { type Cell, Cells } from './cells.ts'

const ROUTE = { gateway: undefined, nexthop: undefined, protocol: 84 }

/** Few keys, so that they meet, of every table that there is more than one of. */
const ENTRY: fc.Arbitrary<Entry> = fc
  .record({
    kind: fc.constantFrom('link', 'address', 'nexthop', 'route', 'neighbour', 'fdb'),
    n: fc.nat(2),
    link: fc.constantFrom('flannel.1', 'flannel-v6.1'),
    table: fc.constantFrom(254, 7),
    metric: fc.constantFrom(0, 1024),
    variant: fc.nat(1),
  })
  .map(({ kind, n, link, table, metric, variant }): Entry => {
    const ip = parseIp(`10.0.${n}.${kind === 'nexthop' || kind === 'fdb' ? variant : 0}`)
    const mac = parseMac(`02:00:00:00:00:0${kind === 'fdb' ? n : variant}`)
    switch (kind) {
      case 'link':
        return { kind, name: `${link}${n}`, mac, mtu: 1450, up: true, appProbes: {}, tunnel: undefined }
      case 'address':
        return { kind, link, ip, length: 31 + variant }
      case 'nexthop':
        return { kind, id: n, link, gateway: ip }
      case 'route':
        return { kind, link, destination: parsePrefix(`10.0.${n}.0/24`), table, metric, ...ROUTE }
      case 'neighbour':
        return { kind, link, ip, mac, state: 'permanent' }
      case 'fdb':
        return { kind, link, mac, destination: ip }
      default:
        return kind satisfies never
    }
  })

test('two entries are in one cell when the kernel takes them for one, and both sides are what was put last', () => {
  const step = fc.record({ side: fc.constantFrom('desired', 'actual'), entry: ENTRY, gone: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const cells = new Cells()
      const oracle = { desired: new Map<Key, Entry>(), actual: new Map<Key, Entry>() }
      const met = new Set<Cell>()
      for (const { side, entry, gone } of steps) {
        const cell = cells.at(entry)
        met.add(cell)
        cells.put(side, cell, gone ? undefined : entry)
        if (!gone) assert.equal(cell.like, entry, 'it holds on to another entry')
        if (gone) oracle[side].delete(keyOf(entry))
        else oracle[side].set(keyOf(entry), entry)
      }
      for (const side of ['desired', 'actual'] as const) {
        assert.deepEqual(cells.state(side), oracle[side])
        assert.equal(cells.size(side), oracle[side].size)
      }
      for (const { like } of cells.values())
        assert.ok(oracle.desired.has(keyOf(like)) || oracle.actual.has(keyOf(like)))
      // One that was emptied leads to the one that has its key now.
      for (const cell of met) {
        const { desired, actual } = cells.current(cell)
        assert.equal(desired, oracle.desired.get(keyOf(cell.like)))
        assert.equal(actual, oracle.actual.get(keyOf(cell.like)))
      }
    }),
  )
})

test('a side is taken away from all, and cells without the other one go', () => {
  const [first, second] = fc
    .sample(ENTRY, 100)
    .filter(({ kind }, i, all) => all.findIndex((e) => e.kind === kind) === i)
  assert.ok(first !== undefined && second !== undefined)
  const cells = new Cells()
  cells.put('actual', cells.at(first), first)
  cells.put('actual', cells.at(second), second)
  cells.put('desired', cells.at(second), second)
  cells.clear('actual')
  assert.deepEqual(
    [...cells.values()].map(({ like }) => like),
    [second],
  )
  assert.equal(cells.size('actual'), 0)
  assert.equal(cells.get(first), undefined)
})
