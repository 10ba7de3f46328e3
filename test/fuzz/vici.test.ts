/** Messages to and from charon: laws of the codec, and bytes that are none. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeMessage, encodeMessage, ViciError, type ViciSection } from '../../src/vici/message.ts'
import { decodePacket } from '../../src/vici/packet.ts'

const NAME = fc.string({ unit: 'grapheme', maxLength: 20 })
const VALUE = fc.string({ unit: 'grapheme', maxLength: 60 })
const { section: SECTION } = fc.letrec<{ section: ViciSection }>((tie) => ({
  section: fc.dictionary(
    NAME,
    fc.oneof(
      { maxDepth: 4, depthIdentifier: 'section' },
      VALUE,
      fc.array(VALUE, { maxLength: 4 }),
      tie('section'),
    ),
    { maxKeys: 5, noNullPrototype: true },
  ),
}))

test('law: what was encoded is decoded as it was', () => {
  fc.assert(
    fc.property(SECTION, (section) => {
      assert.deepEqual(decodeMessage(encodeMessage(section)), section)
    }),
  )
})

test('law: a message that was cut off, or changed, is an error or another message, and never an accident', () => {
  const change = fc.record({ at: fc.nat(), byte: fc.nat({ max: 255 }), length: fc.nat() })
  fc.assert(
    fc.property(SECTION, change, (section, { at, byte, length }) => {
      const bytes = encodeMessage(section)
      if (bytes.length === 0) return
      bytes[at % bytes.length] = byte
      decodeOrRefuse(bytes.subarray(0, length % (bytes.length + 1)))
      decodeOrRefuse(bytes)
    }),
    { numRuns: 2000 },
  )
})

test('law: so is anything at all', () => {
  const soup = fc.array(fc.oneof(fc.nat({ max: 7 }), fc.nat({ max: 255 })), { maxLength: 200 })
  fc.assert(
    fc.property(soup, (bytes) => decodeOrRefuse(Buffer.from(bytes))),
    { numRuns: 5000 },
  )
})

function decodeOrRefuse(bytes: Buffer): void {
  for (const decode of [decodeMessage, decodePacket]) {
    try {
      decode(bytes)
    } catch (error) {
      assert.ok(error instanceof ViciError, String(error))
    }
  }
}
