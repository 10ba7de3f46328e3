import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checksum, decodeEchoReply, encodeEchoRequest } from './echo.ts'

/** From RFC 1071, section 3: the sum of these bytes is ddf2. */
test('the checksum is that of RFC 1071', () => {
  assert.equal(checksum(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7)), ~0xddf2 & 0xffff)
  assert.equal(checksum(Uint8Array.of(0x01)), ~0x0100 & 0xffff)
})

test('a request has type 8, its identity in big endian, and a checksum', () => {
  const bytes = encodeEchoRequest('inet', 0x1234, 0xfffe, 3)
  assert.deepEqual([...bytes.subarray(0, 2)], [8, 0])
  assert.deepEqual([...bytes.subarray(4)], [0x12, 0x34, 0xff, 0xfe, 0, 1, 2])
  assert.equal(checksum(bytes), 0)
})

test('a reply is read behind an IPv4 header of any length', () => {
  for (const headerLength of [20, 24]) {
    assert.deepEqual(decodeEchoReply('inet', reply(headerLength)), {
      from: '10.10.11.2',
      ttl: 62,
      identifier: 0x1234,
      sequence: 7,
      length: 12,
    })
  }
})

test('what is no whole echo reply is not read', () => {
  const whole = reply(20)
  for (let length = 0; length < whole.length; length++) {
    assert.equal(decodeEchoReply('inet', whole.subarray(0, length)), undefined, `${length} bytes`)
  }
  const request = Uint8Array.from(whole)
  request.set(encodeEchoRequest('inet', 0x1234, 7, 4), 20)
  assert.equal(decodeEchoReply('inet', request), undefined, 'an echo request')
  const damaged = Uint8Array.from(whole)
  damaged[damaged.length - 1] = 0xff
  assert.equal(decodeEchoReply('inet', damaged), undefined, 'a wrong checksum')
})

test('of IPv6, the kernel takes the IP header away and sums', () => {
  const request = encodeEchoRequest('inet6', 0x1234, 7, 4)
  assert.deepEqual([...request.subarray(0, 4)], [128, 0, 0, 0])
  assert.equal(decodeEchoReply('inet6', request), undefined, 'an echo request')
  const icmp = Uint8Array.from(request)
  icmp[0] = 129
  assert.deepEqual(decodeEchoReply('inet6', icmp), {
    from: undefined,
    ttl: undefined,
    identifier: 0x1234,
    sequence: 7,
    length: 12,
  })
  assert.equal(decodeEchoReply('inet6', icmp.subarray(0, 7)), undefined, 'too short')
  assert.equal(decodeEchoReply('inet', icmp), undefined, 'of another family')
})

/** From 10.10.11.2 with TTL 62. */
function reply(headerLength: number): Uint8Array {
  const packet = new Uint8Array(headerLength + 12)
  packet[0] = 0x40 | (headerLength / 4)
  packet[8] = 62
  packet.set([10, 10, 11, 2], 12)
  const icmp = encodeEchoRequest('inet', 0x1234, 7, 4)
  icmp.set([0, 0, 0, 0])
  const sum = checksum(icmp)
  icmp.set([sum >> 8, sum & 0xff], 2)
  packet.set(icmp, headerLength)
  return packet
}
