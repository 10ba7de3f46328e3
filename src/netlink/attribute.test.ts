import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DecodeError, Reader, Writer } from './attribute.ts'

describe('reader', () => {
  test('the last attribute may lack its padding', () => {
    const reader = new Reader(Uint8Array.of(5, 0, 1, 0, 42), 0)
    assert.equal(reader.next(), true)
    assert.deepEqual([reader.type, reader.u8()], [1, 42])
    assert.equal(reader.next(), false)
  })

  for (const [title, bytes, offset] of [
    ['a struct that is cut off', [1, 2, 3], 0],
    ['an attribute shorter than its header', [1, 2, 3, 4, 3, 0, 1, 0], 4],
    ['an attribute longer than the payload', [1, 2, 3, 4, 4, 0, 1, 0, 9, 0, 1, 0, 42, 0, 0, 0], 8],
    ['half a header at the end', [1, 2, 3, 4, 4, 0, 1, 0, 8, 0], 8],
  ] as const) {
    test(`${title} is an error that says where`, () => {
      const read = () => {
        const reader = new Reader(Uint8Array.from(bytes), 4)
        while (reader.next());
      }
      assert.throws(read, (error) => error instanceof DecodeError && error.offset === offset)
    })
  }

  test('a getter does not read beyond its attribute', () => {
    const reader = new Reader(Uint8Array.of(6, 0, 1, 0, 1, 2, 0, 0, 8, 0, 2, 0, 3, 4, 5, 6), 0)
    reader.next()
    assert.equal(reader.u16(), 0x0201)
    assert.throws(() => reader.u32(), {
      name: 'DecodeError',
      message: '2 bytes where 4 bytes at 0 should be, at byte 4',
    })
    assert.throws(() => reader.ip(), DecodeError)
    assert.throws(() => reader.mac(), DecodeError)
  })

  test('an error in a nest is counted from the start of the payload', () => {
    const reader = new Reader(Uint8Array.of(0, 0, 0, 0, 12, 0, 1, 0, 5, 0, 2, 0, 42, 0, 0, 0), 4)
    reader.next()
    const nested = reader.nested()
    nested.next()
    assert.throws(
      () => nested.u16(),
      (error) => error instanceof DecodeError && error.offset === 12,
    )
  })

  test('what is kept outlives the datagram', () => {
    const datagram = Uint8Array.of(5, 0, 1, 0x80, 42, 0, 0, 0)
    const reader = new Reader(datagram, 0)
    reader.next()
    const kept = reader.attribute()
    datagram.fill(0)
    assert.deepEqual(kept, { type: 0x8001, value: Uint8Array.of(42) })
  })
})

describe('writer', () => {
  test('undefined puts nothing, zero and false are said', () => {
    const writer = new Writer().start(0)
    writer.putU8(1, undefined)
    writer.putU8(2, 0)
    writer.putBoolean(3, undefined)
    writer.putBoolean(4, false)
    writer.putFlag(5, false)
    writer.putFlag(6, true)
    assert.deepEqual([...writer.finish()], [5, 0, 2, 0, 0, 0, 0, 0, 5, 0, 4, 0, 0, 0, 0, 0, 4, 0, 6, 0])
  })

  test('an attribute that its length field cannot tell is refused', () => {
    const half = new Uint8Array(40_000)
    assert.throws(() => new Writer().start(0).putBytes(1, new Uint8Array(0xfffc)), RangeError)
    const writer = new Writer().start(0)
    const nest = () => {
      writer.nest(1, () => {
        writer.putBytes(2, half)
        writer.putBytes(3, half)
      })
    }
    assert.throws(nest, RangeError)
  })
})
