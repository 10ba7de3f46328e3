/** Addresses, prefixes and MACs against an independent library, and against arithmetic on whole numbers. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Address4, Address6 } from 'ip-address'
import {
  AddressError,
  formatIp,
  formatIpv4,
  type Ip,
  ipBytes,
  ipFamily,
  ipFromNumber,
  ipToNumber,
  ipv4Bits,
  isLinkLocal,
  isLoopback,
  isMulticast,
  parseIp,
} from './ip.ts'
import { formatMac, parseMac, writeMac } from './mac.ts'
import {
  type Prefix,
  parsePrefix,
  prefixBase,
  prefixContains,
  prefixCovers,
  prefixEnd,
  prefixesOverlap,
  prefixLength,
  prefixOf,
  subPrefixes,
} from './prefix.ts'

const BYTE = fc.oneof(fc.nat(255), fc.constantFrom(0, 127, 169, 224, 254, 255))
const BYTES4 = fc.uint8Array({ minLength: 4, maxLength: 4 })
const BYTES16 = fc.array(BYTE, { minLength: 16, maxLength: 16 }).map((bytes) => Uint8Array.from(bytes))
const IP = fc.oneof(BYTES4, BYTES16).map(formatIp)

test('law: an address is written as the library writes it, and read back', () => {
  fc.assert(
    fc.property(IP, (ip) => {
      const theirs = ipFamily(ip) === 'inet' ? new Address4(ip) : new Address6(ip)
      assert.equal(BigInt(theirs.bigInt()), ipToNumber(ip))
      if (!ip.includes('.') || ipFamily(ip) === 'inet') assert.equal(theirs.correctForm(), ip)
      assert.equal(parseIp(ip), ip)
      assert.equal(formatIp(ipBytes(ip)), ip)
      assert.equal(ipFromNumber(ipToNumber(ip), ipFamily(ip)), ip)
      assert.equal(ipv4Bits(ip), ipFamily(ip) === 'inet' ? Number(ipToNumber(ip)) : undefined)
    }),
  )
})

test('law: text is an IPv4 address for us exactly when it is one for the library', () => {
  const near = fc
    .array(fc.constantFrom('0', '1', '9', '25', '255', '256', '.', '.', '.', '-', ' ', 'a'), { maxLength: 9 })
    .map((parts) => parts.join(''))
  fc.assert(
    fc.property(fc.oneof(near, IP, fc.string({ maxLength: 16 })), (text) => {
      fc.pre(!text.includes(':') && !text.includes('/'))
      const bits = ipv4Bits(text)
      // Theirs takes leading zeros in places; ours is strict, so that one address has one spelling.
      const plain = text.split('.').every((part) => `${Number(part)}` === part)
      assert.equal(bits !== undefined, Address4.isValid(text) && plain, text)
      if (bits === undefined) assert.throws(() => parseIp(text), AddressError)
      else assert.equal(formatIpv4(bits), text)
    }),
    { numRuns: 2000 },
  )
})

test('what kind of address it is', () => {
  for (const [kind, yes, no] of [
    [isMulticast, ['224.0.0.1', '239.255.255.255', 'ff02::1'], ['223.255.255.255', '240.0.0.0', 'fe80::1']],
    [isLoopback, ['127.0.0.1', '127.255.0.9', '::1'], ['128.0.0.1', '126.1.1.1', '::2']],
    [isLinkLocal, ['169.254.0.1', 'fe80::1', 'febf::1'], ['169.253.0.1', 'fec0::1', '10.0.0.1']],
  ] as const) {
    for (const ip of yes) assert.ok(kind(parseIp(ip)), ip)
    for (const ip of no) assert.ok(!kind(parseIp(ip)), ip)
  }
})

/** Near one another, so that they meet. */
const PREFIX = fc
  .tuple(
    fc.constantFrom('10.1.2.3', '10.1.2.128', '10.0.0.0', '255.255.255.255', 'fd00::1', 'fd00:0:0:1::'),
    fc.nat(128),
  )
  .map(([ip, length]): Prefix => prefixOf(ip as Ip, ip.includes(':') ? length : length % 33))

function bounds(prefix: Prefix): readonly [family: string, first: bigint, last: bigint] {
  return [ipFamily(prefixBase(prefix)), ipToNumber(prefixBase(prefix)), prefixEnd(prefix)]
}

test('law: what prefixes share is what their ranges of numbers share', () => {
  fc.assert(
    fc.property(PREFIX, PREFIX, IP, (a, b, ip) => {
      const [family, first, last] = bounds(a)
      const [otherFamily, otherFirst, otherLast] = bounds(b)
      const same = family === otherFamily
      assert.equal(prefixCovers(a, b), same && first <= otherFirst && otherLast <= last)
      assert.equal(prefixesOverlap(a, b), same && first <= otherLast && otherFirst <= last)
      const value = ipToNumber(ip)
      assert.equal(prefixContains(a, ip), family === ipFamily(ip) && first <= value && value <= last)
      assert.equal(parsePrefix(a), a)
    }),
    { numRuns: 2000 },
  )
})

test('law: a prefix is as long as it says, and its base is its first address', () => {
  fc.assert(
    fc.property(IP, fc.nat(128), (ip, n) => {
      const bits = ipFamily(ip) === 'inet' ? 32 : 128
      const length = n % (bits + 1)
      const prefix = prefixOf(ip, length)
      const size = 1n << BigInt(bits - length)
      assert.equal(prefixLength(prefix), length)
      assert.equal(ipToNumber(prefixBase(prefix)), (ipToNumber(ip) / size) * size)
      assert.equal(prefixEnd(prefix), (ipToNumber(ip) / size + 1n) * size - 1n)
    }),
  )
})

test('the parts of a prefix, in order', () => {
  assert.deepEqual(
    [...subPrefixes('10.0.0.0/22' as Prefix, 24)],
    ['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24', '10.0.3.0/24'],
  )
  assert.deepEqual([...subPrefixes('fd00::/63' as Prefix, 64)], ['fd00::/64', 'fd00:0:0:1::/64'])
})

test('law: a MAC is read as it is written', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
      const mac = formatMac(bytes)
      const written = new Uint8Array(6)
      writeMac(mac, written, 0)
      assert.deepEqual(written, bytes)
      assert.equal(parseMac(mac.toUpperCase()), mac)
    }),
  )
  for (const text of ['02:00:00:00:00', '02-00-00-00-00-01', '2:0:0:0:0:1', '02:00:00:00:00:0g', '']) {
    assert.throws(() => parseMac(text), AddressError)
  }
})
