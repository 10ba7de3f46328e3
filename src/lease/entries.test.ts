import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { type Entry, Snapshots } from './entries.ts'
import { formatLeaseKey, type Lease } from './lease.ts'

/** An entry under a name of its own, for the subnet 10.3.<value>.0/24; a value that is no number cannot be read. */
function decode({ key, value, expires, created }: Entry): Lease | string {
  if (!/^\d+$/.test(value)) return `${value} is no number`
  const subnets = { inet: parsePrefix(`10.3.${value}.0/24`) }
  const publicIps = { inet: parseIp('192.168.1.10') }
  const rest = { publicIps, backendType: 'vxlan', backendData: {}, expires, created, node: key }
  return { key: formatLeaseKey(subnets), subnets, ...rest }
}

const entryOf = (key: string, value: string, created: number): Entry => ({
  key,
  value,
  created,
  expires: undefined,
})

const ABOUT = { config: undefined, incarnation: '' }

/** Each lease with the node that holds it, and what is said of the others. */
function told({ leases, malformed }: ReturnType<Snapshots['take']>['snapshot']) {
  return {
    leases: new Map([...leases].map(([key, { node }]) => [`${key}`, node])),
    malformed: new Map(malformed),
  }
}

test('of two entries for one lease the older holds, and the next when it goes', () => {
  const snapshots = new Snapshots(new Map(), decode)
  const [young, old] = [entryOf('young', '1', 2), entryOf('old', '1', 1)]
  snapshots.take({ ...ABOUT, entries: [young] }, 0)
  const taken = snapshots.change(new Map([['old', old]]), ABOUT).snapshot
  const why = 'the older node old has its subnet 10.3.1.0/24'
  assert.deepEqual(told(taken), {
    leases: new Map([['10.3.1.0-24', 'old']]),
    malformed: new Map([['young', why]]),
  })
  assert.deepEqual([[...(taken.changed ?? [])], taken.gone.size], [['10.3.1.0-24'], 0])
  const freed = snapshots.change(new Map([['old', undefined]]), ABOUT).snapshot
  assert.deepEqual(told(freed), { leases: new Map([['10.3.1.0-24', 'young']]), malformed: new Map() })
  const gone = snapshots.change(new Map([['young', undefined]]), ABOUT).snapshot
  assert.deepEqual(
    [...gone.gone.values()].map(({ node }) => node),
    ['young'],
  )
})

test('of two entries that are as old as each other, the first by name holds', () => {
  for (const names of [
    ['a', 'b'],
    ['b', 'a'],
  ]) {
    const entries = names.map((name) => entryOf(name, '1', 1))
    const { snapshot } = new Snapshots(new Map(), decode).take({ ...ABOUT, entries }, 0)
    assert.equal(told(snapshot).leases.get('10.3.1.0-24'), 'a')
  }
})

test('law: one change after the other leads where all at once lead', () => {
  const name = fc.constantFrom('a', 'b', 'c', '10.3.1.0-24')
  const value = fc.constantFrom('1', '2', 'junk', undefined)
  const step = fc.tuple(name, value, fc.integer({ min: 1, max: 3 }))
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const one = new Snapshots(new Map(), decode)
      let last = one.take({ ...ABOUT, entries: [] }, 0)
      const entries = new Map<string, Entry>()
      for (const [key, text, created] of steps) {
        const before = new Map(last.snapshot.leases)
        const entry = text === undefined ? undefined : entryOf(key, text, created)
        if (entry === undefined) entries.delete(key)
        else entries.set(key, entry)
        last = one.change(new Map([[key, entry]]), ABOUT)
        const { leases, changed = new Set(), gone } = last.snapshot
        const keys = new Set([...before.keys(), ...leases.keys()])
        const differing = [...keys].filter((each) => before.get(each) !== leases.get(each))
        assert.deepEqual(new Set(changed), new Set(differing))
        assert.deepEqual(
          [...gone],
          [...before].filter(([each]) => !leases.has(each)),
        )
      }
      const all = new Snapshots(new Map(), decode).take({ ...ABOUT, entries: [...entries.values()] }, 0)
      assert.deepEqual(told(last.snapshot), told(all.snapshot))
    }),
  )
})
