import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipFromNumber, parseIp } from '../address/ip.ts'
import { prefixesOverlap, prefixOf } from '../address/prefix.ts'
import type { LeaseKey } from './lease.ts'
import { SubnetIndex } from './subnet-index.ts'

test('law: after any additions and deletions it finds what a list finds', () => {
  const inet = fc
    .tuple(fc.integer({ min: 0, max: 7 }), fc.integer({ min: 29, max: 32 }))
    .map(([last, length]) => prefixOf(ipFromNumber(0x0a030000n + BigInt(last), 'inet'), length))
  const inet6 = fc
    .integer({ min: 0, max: 128 })
    .map((length) => prefixOf(parseIp('fd00:ffff::ffff:1'), length))
  const subnet = fc.oneof(inet, inet6)
  const key = fc.constantFrom('a' as LeaseKey, 'b' as LeaseKey)
  const step = fc.record({ add: fc.boolean(), subnet, key })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), subnet, (steps, probe) => {
      const index = new SubnetIndex()
      const list = new Map<string, (typeof steps)[number]>()
      for (const each of steps) {
        const name = `${each.subnet} ${each.key}`
        if (each.add) list.set(name, each)
        else list.delete(name)
        if (each.add) index.add(each.subnet, each.key)
        else index.delete(each.subnet, each.key)
      }
      const expected = [...list.values()].filter((each) => prefixesOverlap(each.subnet, probe))
      assert.deepEqual(index.overlapping(probe).sort(), expected.map((each) => each.key).sort())
    }),
  )
})
