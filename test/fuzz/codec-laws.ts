/** What holds for every codec, and arbitrary values for them. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatIp, type Ip } from '../../src/address/ip.ts'
import { formatMac, type Mac } from '../../src/address/mac.ts'
import { type Attribute, DecodeError, Writer } from '../../src/netlink/attribute.ts'
import { AF_INET } from '../../src/netlink/rtnetlink.ts'
import { readVector, vectorNames } from '../vectors/netlink.ts'

export const u8 = fc.nat(0xff)
export const u16 = fc.nat(0xffff)
export const u32 = fc.nat(0xffffffff)
export const i32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
export const boolean = fc.boolean()
export const flag = fc.constant(true)
export const ip: fc.Arbitrary<Ip> = fc
  .oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map(formatIp)
export const mac: fc.Arbitrary<Mac> = fc.uint8Array({ minLength: 6, maxLength: 6 }).map(formatMac)
export const name = fc
  .string({ unit: 'grapheme', maxLength: 15 })
  .filter((text) => text.isWellFormed() && !text.includes('\0'))
export function record<T>(model: Model<T>): fc.Arbitrary<T> {
  return fc.record<T>(model, { noNullPrototype: true })
}

export function partial<T>(model: Model<T>): fc.Arbitrary<Partial<T>> {
  return fc.record(model, { noNullPrototype: true, requiredKeys: [] }) as fc.Arbitrary<Partial<T>>
}

export type Model<T> = { readonly [K in keyof T]: fc.Arbitrary<T[K]> }

/** Types that no object knows, with any of the two flags. */
export const unknown: fc.Arbitrary<Attribute[]> = fc.array(
  record({
    type: fc
      .tuple(fc.integer({ min: 200, max: 0x3fff }), fc.constantFrom(0, 0x4000, 0x8000))
      .map(([a, b]) => a | b),
    value: fc.uint8Array({ maxLength: 40 }),
  }),
  { maxLength: 4 },
)

/** A record whose header is always there and whose attributes may each be absent. */
export function object<H extends object, A extends object>(
  header: Model<H>,
  attributes: Model<A>,
): fc.Arbitrary<H & Partial<A>> {
  return fc
    .tuple(record(header), partial(attributes))
    .map(([required, optional]) => ({ ...required, ...optional }))
}

/** One writer for all values of a test, with chunks so small that they are exchanged amid a payload. */
export function roundTrip<T>(
  values: fc.Arbitrary<T>,
  encode: (value: T, writer: Writer) => Uint8Array,
  decode: Decode,
): void {
  const writer = new Writer(64)
  fc.assert(
    fc.property(values, fc.boolean(), (value, shared) => {
      const payload = encode(value, shared ? writer : new Writer())
      assert.deepEqual(decode(payload), value)
    }),
    { numRuns: 200 },
  )
}

export type Decode = (payload: Uint8Array) => unknown

const captured = vectorNames().flatMap((file) => {
  const { sent, received } = readVector(file)
  return [...sent, ...received].map(({ payload }) => payload)
})

/** Tests that bytes of three kinds give a value or a DecodeError. */
export function survivesAll(title: string, decode: Decode): void {
  test(`${title}: random bytes`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => survives(decode, bytes)),
      { numRuns: 2000 },
    )
  })

  test(`${title}: random attributes`, () => {
    const attributes = fc.array(record({ type: fc.nat(70), value: fc.uint8Array({ maxLength: 24 }) }))
    fc.assert(
      fc.property(fc.constantFrom(4, 8, 12, 16), attributes, (size, list) => {
        const writer = new Writer().start(size)
        writer.u8(0, AF_INET)
        writer.putAll(list)
        survives(decode, writer.finish())
      }),
      { numRuns: 1000 },
    )
  })

  test(`${title}: captured bytes, cut off and changed`, () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.oneof(u8, fc.nat(5))), { maxLength: 4 })
    fc.assert(
      fc.property(fc.constantFrom(...captured), fc.nat(), changes, (payload, length, list) => {
        const bytes = payload.slice(0, length % (2 * payload.length + 1))
        for (const [at, value] of list) if (bytes.length > 0) bytes[at % bytes.length] = value
        survives(decode, bytes)
      }),
      { numRuns: 2000 },
    )
  })
}

export function survives(decode: Decode, bytes: Uint8Array): void {
  try {
    decode(bytes)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    assert.ok(error.offset <= bytes.length, `offset ${error.offset} of ${bytes.length}`)
  }
}
