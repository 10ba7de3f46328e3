/** The range answers that are taken apart by hand, against the generated code, and against bytes that are none. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readPairs, splitPage, WireError } from '../../src/lease/etcd/range.ts'
import { RangeResponse } from '../../src/lease/etcd/rpc.ts'

const REVISION = fc.bigInt({ min: 0n, max: 2n ** 53n - 1n })
const PAIR = fc.record({
  key: fc.string({ maxLength: 40 }),
  value: fc.string({ maxLength: 300 }),
  createRevision: REVISION,
  modRevision: REVISION,
  lease: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
})
const ANSWER = fc.record({
  header: fc.record({ clusterId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), revision: REVISION }),
  kvs: fc.array(PAIR, { maxLength: 6 }),
  more: fc.boolean(),
})

test('law: what the generated code encodes is read as it was', () => {
  fc.assert(
    fc.property(ANSWER, ({ header, kvs, more }) => {
      const buffers = kvs.map((kv) => ({ ...kv, key: Buffer.from(kv.key), value: Buffer.from(kv.value) }))
      const bytes = Buffer.from(RangeResponse.encode({ header, kvs: buffers, more }).finish())
      const page = splitPage(bytes)
      assert.deepEqual(
        [page.cluster, page.revision, page.more, page.last],
        [header.clusterId, Number(header.revision), more, buffers.at(-1)?.key ?? Buffer.alloc(0)],
      )
      const expected = buffers.map(({ key, value, createRevision, modRevision, lease }) => ({
        key: key.toString(),
        value: value.toString(),
        created: Number(createRevision),
        modified: Number(modRevision),
        lease,
        seen: 7,
      }))
      assert.deepEqual([...readPairs(page, 7)], expected)
    }),
  )
})

test('law: bytes that were damaged give a page or a WireError, and an end', () => {
  const sample = Buffer.from(
    RangeResponse.encode({
      header: { clusterId: 5n, revision: 9n },
      kvs: [
        { key: Buffer.from('k'), value: Buffer.from('v'), createRevision: 1n, modRevision: 2n, lease: 3n },
      ],
      more: true,
    }).finish(),
  )
  const damage = fc.tuple(fc.nat(sample.length - 1), fc.nat(255))
  fc.assert(
    fc.property(
      fc.array(damage, { minLength: 1, maxLength: 4 }),
      fc.nat(sample.length),
      (changes, length) => {
        const bytes = Buffer.from(sample)
        for (const [at, byte] of changes) bytes[at] = byte
        const cut = bytes.subarray(0, length)
        try {
          for (const stored of readPairs(splitPage(cut), 0)) assert.equal(typeof stored.key, 'string')
        } catch (error) {
          assert.ok(error instanceof WireError, String(error))
        }
      },
    ),
    { numRuns: 2000 },
  )
})
