import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatIp, type Ip } from './ip.ts'
import { type Prefix, prefixContains, prefixesOverlap, prefixLength, prefixOf } from './prefix.ts'
import { PrefixMap } from './prefix-map.ts'

/** Few addresses and all lengths, so that prefixes meet. */
const IP = fc
  .tuple(fc.constantFrom(4, 16), fc.array(fc.constantFrom(0, 1, 128, 255), { minLength: 16, maxLength: 16 }))
  .map(([size, bytes]): Ip => formatIp(Uint8Array.from(bytes.slice(0, size))))
const PREFIX = fc
  .tuple(IP, fc.nat(128))
  .map(([ip, length]): Prefix => prefixOf(ip, ip.includes(':') ? length : length % 33))

test('finds what a look at every prefix finds', () => {
  const history = fc.array(fc.tuple(fc.boolean(), PREFIX), { maxLength: 60 })
  fc.assert(
    fc.property(history, PREFIX, IP, (steps, prefix, ip) => {
      const map = new PrefixMap<Prefix>()
      const all = new Set<Prefix>()
      for (const [add, each] of steps) {
        if (add) map.set(each, each)
        else map.delete(each)
        if (add) all.add(each)
        else all.delete(each)
      }
      assert.equal(map.get(prefix), all.has(prefix) ? prefix : undefined)
      const overlapping = [...all].filter((each) => prefixesOverlap(each, prefix))
      assert.deepEqual(new Set(map.overlapping(prefix)), new Set(overlapping))
      const [longest] = [...all]
        .filter((each) => prefixContains(each, ip))
        .sort((a, b) => prefixLength(b) - prefixLength(a))
      assert.equal(map.longest(ip), longest)
    }),
    { numRuns: 500 },
  )
})

test('a prefix that covers many is asked for each, one that covers more than there are looks at each', () => {
  const map = new PrefixMap<string>()
  for (let i = 0; i < 1000; i++) map.set(`10.${i >> 8}.${i & 255}.0/24` as Prefix, `${i}`)
  assert.deepEqual(map.overlapping('10.1.4.0/22' as Prefix), ['260', '261', '262', '263'])
  assert.equal(map.overlapping('10.0.0.0/8' as Prefix).length, 1000)
  assert.deepEqual(map.overlapping('11.0.0.0/8' as Prefix), [])
})
