/**
 * ETHTOOL_A_BITSET_* (linux/ethtool_netlink.h): sets of named bits, in two forms. The verbose form lists bits by index
 * and name; the compact form, which notifications have, is two maps of 32-bit words and knows no names.
 */

import { NLA_F_NESTED, type Reader, type Writer } from './attribute.ts'

const ETHTOOL_A_BITSET_NOMASK = 1
const ETHTOOL_A_BITSET_SIZE = 2
const ETHTOOL_A_BITSET_BITS = 3
const ETHTOOL_A_BITSET_VALUE = 4
const ETHTOOL_A_BITSET_MASK = 5

const ETHTOOL_A_BITSET_BITS_BIT = 1

const ETHTOOL_A_BITSET_BIT_INDEX = 1
const ETHTOOL_A_BITSET_BIT_NAME = 2
const ETHTOOL_A_BITSET_BIT_VALUE = 3

export interface Bit {
  readonly index?: number | undefined
  /** Not told in the compact form. */
  readonly name?: string | undefined
  readonly on: boolean
}

export interface Bitset {
  /** `bits` are those that are on: all others are off. Else nothing is said of those that are not in it. */
  readonly whole: boolean
  /** How many bits there are. */
  readonly size?: number | undefined
  readonly bits: readonly Bit[]
}

/** @throws {DecodeError} */
export function decodeBitset(reader: Reader): Bitset {
  let whole = false
  let size: number | undefined
  let listed: Bit[] = []
  let values: number[] | undefined
  let mask: number[] | undefined
  while (reader.next()) {
    switch (reader.type) {
      case ETHTOOL_A_BITSET_NOMASK:
        whole = true
        break
      case ETHTOOL_A_BITSET_SIZE:
        size = reader.u32()
        break
      case ETHTOOL_A_BITSET_BITS:
        listed = decodeBits(reader.nested())
        break
      case ETHTOOL_A_BITSET_VALUE:
        values = bitsOf(reader)
        break
      case ETHTOOL_A_BITSET_MASK:
        mask = bitsOf(reader)
        break
      default:
    }
  }
  const bits = values === undefined ? listed : compactBits(new Set(values), whole ? values : (mask ?? values))
  // In a list of those that are on, the flag that says so is left out.
  const said = whole ? bits.map((bit) => ({ ...bit, on: true })) : bits
  return size === undefined ? { whole, bits: said } : { whole, size, bits: said }
}

function decodeBits(list: Reader): Bit[] {
  const bits: Bit[] = []
  while (list.next()) {
    if (list.type === ETHTOOL_A_BITSET_BITS_BIT) bits.push(decodeBit(list.nested()))
  }
  return bits
}

function decodeBit(reader: Reader): Bit {
  let index: number | undefined
  let name: string | undefined
  let on = false
  while (reader.next()) {
    if (reader.type === ETHTOOL_A_BITSET_BIT_INDEX) index = reader.u32()
    if (reader.type === ETHTOOL_A_BITSET_BIT_NAME) name = reader.text()
    if (reader.type === ETHTOOL_A_BITSET_BIT_VALUE) on = true
  }
  return { ...(index !== undefined && { index }), ...(name !== undefined && { name }), on }
}

function compactBits(values: ReadonlySet<number>, indexes: readonly number[]): Bit[] {
  return indexes.map((index) => ({ index, on: values.has(index) }))
}

/** The numbers of the bits that are set: bit 0 is the lowest of the first word. */
function bitsOf(reader: Reader): number[] {
  const set: number[] = []
  for (let at = 0; at < reader.length; at += 4) {
    const word = reader.u32(at)
    for (let bit = 0; bit < 32; bit++) if (((word >>> bit) & 1) === 1) set.push(8 * at + bit)
  }
  return set
}

/** In the verbose form. */
export function putBitset(writer: Writer, type: number, bitset: Bitset | undefined): void {
  if (bitset === undefined) return
  const { whole, size, bits } = bitset
  writer.nest(type | NLA_F_NESTED, () => {
    writer.putFlag(ETHTOOL_A_BITSET_NOMASK, whole)
    writer.putU32(ETHTOOL_A_BITSET_SIZE, size)
    writer.nest(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, () => {
      for (const bit of bits) {
        writer.nest(ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED, () => putBit(bit, whole, writer))
      }
    })
  })
}

function putBit({ index, name, on }: Bit, whole: boolean, writer: Writer): void {
  writer.putU32(ETHTOOL_A_BITSET_BIT_INDEX, index)
  writer.putText(ETHTOOL_A_BITSET_BIT_NAME, name)
  writer.putFlag(ETHTOOL_A_BITSET_BIT_VALUE, on && !whole)
}
