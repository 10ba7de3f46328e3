import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../address/ip.ts'
import {
  decodeLeaseValue,
  encodeLeaseValue,
  formatLeaseKey,
  LeaseError,
  parseLeaseKey,
  sameHost,
} from './lease.ts'

const MAC = '6e:f7:a4:d8:2b:03'

test('keys: read liberally, printed in one spelling', () => {
  const spellings = {
    '10.5.34.0-24': '10.5.34.0-24',
    '10.5.34.7-24': '10.5.34.0-24',
    '/coreos.com/network/subnets/10.5.34.0-24': '10.5.34.0-24',
    '10.5.34.0-24&fd80:0:0:48::-64': '10.5.34.0-24&fd80:0:0:48::-64',
    '10.5.34.0-24&fd80:0:0:48:0:0:0:0-64': '10.5.34.0-24&fd80:0:0:48::-64',
    '0.0.0.0-0&fd80:0:0:48::-64': '0.0.0.0-0&fd80:0:0:48::-64',
  }
  for (const [text, canonical] of Object.entries(spellings)) {
    assert.equal(formatLeaseKey(parseLeaseKey(text)), canonical)
  }
  assert.deepEqual(parseLeaseKey('10.5.34.0-24&fd80::-64'), { inet: '10.5.34.0/24', inet6: 'fd80::/64' })
  assert.deepEqual(parseLeaseKey('0.0.0.0-0&fd80::-64'), { inet6: 'fd80::/64' })
})

test('keys: what flannel rejects is rejected', () => {
  const junk = [
    '',
    '10',
    '10.12.13.0',
    '10.12.13-24',
    '10.12.13.300-24',
    '10.12.13.0-24hi',
    '&2001::-56',
    '10.12.13.0-32',
  ]
  const tails = [
    '&:12:13:-56',
    '&20011::-56',
    '&2001-56',
    '&2001::',
    '&2001::-56hi',
    '&2001::-128',
    '&FD80::-64',
  ]
  for (const text of [...junk, ...tails.map((tail) => `10.12.13.0-24${tail}`)]) {
    assert.throws(() => parseLeaseKey(text), LeaseError, text)
  }
})

test('values: the bytes that flannel writes, both ways', () => {
  const texts = [
    `{"PublicIP":"10.199.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${MAC}"}}`,
    `{"PublicIP":"10.199.0.1","PublicIPv6":"fd99::1","BackendType":"vxlan","BackendData":{"VNI":7,"VtepMAC":"${MAC}"},"BackendV6Data":{"VNI":7,"VtepMAC":"${MAC}"}}`,
    '{"PublicIP":"1.2.3.4","PublicIPv6":null}',
    '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"host-gw"}',
    '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"aGVsbG8+/w==","Port":51820}}',
    '{"PublicIP":"0.0.0.0","PublicIPv6":"fd99::1","BackendType":"vxlan"}',
  ]
  // Go escapes these three (and U+2028, U+2029) inside strings.
  const escaped =
    '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"extension","BackendData":"\\u003ca\\u003e \\u0026 b\\u2028"}'
  for (const text of [...texts, escaped]) assert.equal(encodeLeaseValue(decodeLeaseValue(text)), text)
  assert.deepEqual(decodeLeaseValue(escaped).backendData, { inet: '<a> & b\u2028' })
})

test('values: keys in any case, others ignored, an old lease has only a MAC', () => {
  const text = `{"publicip":"1.2.3.4","BACKENDTYPE":"vxlan","BackendData":{"VtepMAC":"${MAC}"},"BackendV6Data":null,"x":1}`
  assert.deepEqual(decodeLeaseValue(text), {
    publicIps: { inet: '1.2.3.4' },
    backendType: 'vxlan',
    backendData: { inet: { VtepMAC: MAC } },
  })
})

test('values: an error names the field and the value', () => {
  const expected = {
    '{"PublicIP"': /the value is not JSON/,
    '[]': /the value is \[\], not a JSON object/,
    null: /the value is null, not a JSON object/,
    '{}': /PublicIP is missing/,
    '{"PublicIP":"10.1.1"}': /PublicIP is "10\.1\.1", not an IPv4 address/,
    '{"PublicIP":7}': /PublicIP is 7, not an IPv4 address/,
    '{"PublicIP":"fd99::1"}': /PublicIP is "fd99::1", not an IPv4 address/,
    '{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}': /PublicIPv6 is "1\.2\.3\.4", not an IPv6 address/,
    '{"PublicIP":"1.2.3.4","BackendType":1}': /BackendType is 1, not a string/,
  }
  for (const [text, message] of Object.entries(expected)) {
    assert.throws(() => decodeLeaseValue(text), { name: 'LeaseError', message })
  }
})

test('one host is known by its IPv4 address, else by its IPv6 address', () => {
  const [a, b, six] = ['1.1.1.1' as Ip, '2.2.2.2' as Ip, 'fd99::1' as Ip]
  assert.ok(sameHost({ inet: a, inet6: six }, { inet: a }))
  assert.ok(!sameHost({ inet: a, inet6: six }, { inet: b, inet6: six }))
  assert.ok(sameHost({ inet: a, inet6: six }, { inet6: six }))
  assert.ok(!sameHost({ inet: a }, { inet6: six }))
  assert.ok(!sameHost({}, {}))
})

test('a value of brackets within brackets is refused: nobody could write it again', () => {
  const data = '['.repeat(10_000) + ']'.repeat(10_000)
  const value = `{"PublicIP":"192.168.1.10","BackendData":${data}}`
  assert.throws(() => decodeLeaseValue(value), {
    name: 'LeaseError',
    message: 'the value has more than 1000 brackets',
  })
})
