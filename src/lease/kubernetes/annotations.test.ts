import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../../address/ip.ts'
import { annotationPrefix, missing } from './annotations.ts'

const PUBLIC_IP = parseIp('192.168.1.10')
const PUBLIC_IPV6 = parseIp('fd00:192::10')

test("a prefix is made whole by flannel's rules", () => {
  for (const [text, prefix] of [
    ['org.com', 'org.com/'],
    ['org.com/', 'org.com/'],
    ['org.com/prefix', 'org.com/prefix-'],
    ['org.com/prefix-', 'org.com/prefix-'],
    ['flannel.alpha.coreos.com', 'flannel.alpha.coreos.com/'],
  ] as const) {
    assert.equal(annotationPrefix(text), prefix)
  }
})

test("a prefix that cannot be is refused in flannel's words", () => {
  for (const text of ['org.com/a/b', '/org.com/', 'a//']) {
    assert.throws(() => annotationPrefix(text), {
      code: 'invalid',
      message: 'subnet/kube: prefix can contain at most single slash',
    })
  }
  for (const text of ['', 'org', 'org.com/UPPER', '.com', 'org.com/pre fix', 'https://org.com', 'a b.com']) {
    assert.throws(() => annotationPrefix(text), { code: 'invalid', message: /^subnet\/kube: prefix / })
  }
})

test('vxlan: what flanneld parses by hand, to the byte', () => {
  const backendData = { inet: { VNI: 1, VtepMAC: '12:c6:65:89:b4:e3' } }
  assert.deepEqual(missing({ publicIps: { inet: PUBLIC_IP }, backendType: 'vxlan', backendData }, {}), {
    'kube-subnet-manager': 'true',
    'backend-type': 'vxlan',
    'backend-data': '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
    'public-ip': '192.168.1.10',
  })
})

test('a backend without data says null; IPv6 alone says nothing of IPv4, and takes away what stands there', () => {
  const attributes = { publicIps: { inet6: PUBLIC_IPV6 }, backendType: 'host-gw', backendData: {} }
  const found = { 'public-ip': '192.168.1.10', 'backend-type': 'host-gw', 'node-public-ip': '192.168.1.50' }
  assert.deepEqual(missing(attributes, found), {
    'kube-subnet-manager': 'true',
    'backend-v6-data': 'null',
    'public-ipv6': 'fd00:192::10',
    'public-ip': null,
  })
})

test("characters that Go's encoder does not leave as they are", () => {
  const attributes = {
    publicIps: { inet: PUBLIC_IP },
    backendType: 'extension',
    backendData: { inet: '<&>' },
  }
  assert.equal(missing(attributes, {})['backend-data'], '"\\u003c\\u0026\\u003e"')
})

test('an overwrite is published as it stands; what is right already is not missing', () => {
  const publicIps = { inet: PUBLIC_IP, inet6: PUBLIC_IPV6 }
  const attributes = { publicIps, backendType: 'host-gw', backendData: {} }
  const right = {
    'kube-subnet-manager': 'true',
    'backend-type': 'host-gw',
    'backend-data': 'null',
    'backend-v6-data': 'null',
    'public-ip': '192.168.1.10',
    'public-ipv6': 'fd00:192::10',
  }
  assert.deepEqual(missing(attributes, right), {})
  assert.deepEqual(missing(attributes, { ...right, 'public-ip-overwrite': '172.18.0.2' }), {
    'public-ip': '172.18.0.2',
  })
  assert.deepEqual(missing(attributes, { ...right, 'public-ipv6-overwrite': 'what an operator says' }), {
    'public-ipv6': 'what an operator says',
  })
})
