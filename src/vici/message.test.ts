import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { decodeMessage, encodeMessage, ViciError, type ViciSection } from './message.ts'
import { decodePacket, encodeRequest, PacketReader } from './packet.ts'

/** The example of the protocol's description, byte for byte. */
const EXAMPLE: ViciSection = {
  key1: 'value1',
  section1: { 'sub-section': { key2: 'value2' }, list1: ['item1', 'item2'] },
}
const EXAMPLE_BYTES = Buffer.concat([
  Buffer.from('\x03\x04key1\x00\x06value1'),
  Buffer.from('\x01\x08section1'),
  Buffer.from('\x01\x0bsub-section'),
  Buffer.from('\x03\x04key2\x00\x06value2'),
  Buffer.from('\x02'),
  Buffer.from('\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06'),
  Buffer.from('\x02'),
])

describe('vici messages', () => {
  test('the example of the description', () => {
    assert.deepEqual(encodeMessage(EXAMPLE), EXAMPLE_BYTES)
    assert.deepEqual(decodeMessage(EXAMPLE_BYTES), EXAMPLE)
  })

  test('empty sections, lists, values and names', () => {
    const message = { a: {}, b: [], c: '', '': 'd' }
    assert.deepEqual(decodeMessage(encodeMessage(message)), message)
    assert.deepEqual(decodeMessage(Buffer.alloc(0)), {})
  })

  test('a name of a prototype is a name', () => {
    const decoded = decodeMessage(Buffer.from('\x03\x09__proto__\x00\x01x\x01\x0bconstructor\x02'))
    assert.deepEqual(Object.keys(decoded), ['__proto__', 'constructor'])
    assert.equal(Object.getPrototypeOf(decoded), Object.prototype)
  })

  test('what is too long is refused', () => {
    assert.throws(() => encodeMessage({ ['n'.repeat(256)]: '' }), ViciError)
    assert.throws(
      () => encodeMessage({ key: 'v'.repeat(65_536) }),
      /^ViciError: key is longer than 65535 bytes$/,
    )
    assert.deepEqual(decodeMessage(encodeMessage({ key: '€'.repeat(21_845) })), { key: '€'.repeat(21_845) })
    assert.throws(
      () => encodeRequest('request', 'x', { list: Array(9).fill('v'.repeat(65_535)) }),
      /allowed are 524288/,
    )
  })

  for (const [what, bytes, message] of [
    ['ends in a name', '\x03\x04ke', /4 bytes are missing at byte 2 of a vici message of 4/],
    ['ends in a value', '\x03\x01k\x00\x02v', /2 bytes are missing/],
    ['ends in a length', '\x03\x01k\x00', /2 bytes are missing/],
    ['ends in a section', '\x01\x01s', /1 bytes are missing/],
    ['ends in a list', '\x04\x01l', /1 bytes are missing/],
    ['ends a section that it is not in', '\x02', /element type 2 at byte 1/],
    ['has an item outside a list', '\x05\x00\x01v', /element type 5/],
    ['has a key in a list', '\x04\x01l\x03\x01k\x00\x01v', /element type 3 in a list/],
    ['has an element that is none', '\x07', /element type 7/],
    ['is too deep', '\x01\x01s'.repeat(40), /more than 32 sections in each other/],
  ] as const) {
    test(`one that ${what} is refused`, () => {
      assert.throws(() => decodeMessage(Buffer.from(bytes)), { name: 'ViciError', message })
    })
  }
})

describe('vici packets', () => {
  test('a request has a length, a type and a name', () => {
    const request = encodeRequest('request', 'list-conns', { ike: 'x' })
    assert.deepEqual(
      request,
      Buffer.from('\x00\x00\x00\x14\x00\x0alist-conns\x03\x03ike\x00\x01x'.replace('\x14', '\x14')),
    )
    assert.deepEqual(encodeRequest('register', 'e'), Buffer.from('\x00\x00\x00\x03\x03\x01e'))
    assert.deepEqual(encodeRequest('unregister', 'e'), Buffer.from('\x00\x00\x00\x03\x04\x01e'))
  })

  test('each answer is told by its type', () => {
    const read = (text: string) => decodePacket(Buffer.from(text))
    assert.deepEqual(read('\x01\x03\x01k\x00\x01v'), { type: 'response', message: { k: 'v' } })
    assert.deepEqual([read('\x02'), read('\x06')], [{ type: 'unknown' }, { type: 'unknown' }])
    assert.deepEqual(read('\x05'), { type: 'confirmed' })
    assert.deepEqual(read('\x07\x01e\x03\x01k\x00\x01v'), { type: 'event', name: 'e', message: { k: 'v' } })
    for (const bad of ['', '\x00', '\x08', '\x07', '\x07\x05ab', '\x01\x07']) {
      assert.throws(() => read(bad), ViciError, JSON.stringify(bad))
    }
  })

  test('a stream is cut into packets, in whatever pieces it comes', () => {
    const stream = Buffer.from('\x00\x00\x00\x01\x05\x00\x00\x00\x00\x00\x00\x00\x02ab')
    for (let size = 1; size <= stream.length; size++) {
      const reader = new PacketReader()
      const bodies: string[] = []
      for (let at = 0; at < stream.length; at += size) {
        bodies.push(...reader.push(stream.subarray(at, at + size)).map(String))
      }
      assert.deepEqual(bodies, ['\x05', '', 'ab'])
    }
    assert.throws(
      () => new PacketReader().push(Buffer.from([0, 8, 0, 1])),
      /524289 bytes; allowed are 524288/,
    )
  })
})
