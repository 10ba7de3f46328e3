import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { DecodeError } from './attribute.ts'
import { encodeWireguard, joinWireguard, setWireguard } from './wireguard.ts'
import { formatKey, NO_KEY, parseKey, WireguardKeyError } from '../address/key.ts'
import { decodeUapiAnswer, encodeUapiSet } from './wireguard-uapi.ts'

const ONE = formatKey(new Uint8Array(32).fill(1))
const TWO = formatKey(new Uint8Array(32).fill(2))
const THREE = formatKey(new Uint8Array(32).fill(3))

describe('a key', () => {
  test('is 32 bytes in the one base64 of them', () => {
    assert.equal(parseKey(ONE), ONE)
    assert.equal(NO_KEY, `${'A'.repeat(43)}=`)
    const wrong = [
      '',
      ONE.slice(0, -1),
      `${ONE}=`,
      `${ONE}\n`,
      ` ${ONE}`,
      `${'A'.repeat(42)}B=`,
      '-'.repeat(43),
      'A'.repeat(44),
    ]
    for (const text of wrong) assert.throws(() => parseKey(text), WireguardKeyError, JSON.stringify(text))
  })

  test('is not repeated by the error, since it may be a secret', () => {
    assert.throws(
      () => parseKey('c2VjcmV0'),
      (error: Error) => !error.message.includes('c2VjcmV0'),
    )
    const answer = `private_key=${'5ec2e7'.repeat(10)}\nerrno=0\n\n`
    assert.throws(
      () => decodeUapiAnswer(answer),
      (error: Error) => !error.message.includes('5ec2e7'),
    )
  })
})

describe('a device in several messages', () => {
  const a = parsePrefix('10.0.1.0/24')
  const b = parsePrefix('10.0.2.0/24')
  const c = parsePrefix('10.0.3.0/24')

  test('is told in the first of them, and a peer goes on in the next', () => {
    const attribute = { type: 100, value: Uint8Array.of(1) }
    const device = joinWireguard([
      {
        ifindex: 7,
        name: 'wg0',
        listenPort: 1,
        peers: [
          { publicKey: ONE, allowedIps: [], unknown: [] },
          { publicKey: TWO, persistentKeepalive: 25, rxBytes: 5n, allowedIps: [a], unknown: [attribute] },
        ],
        unknown: [],
      },
      { peers: [{ publicKey: TWO, allowedIps: [b], unknown: [] }], unknown: [attribute] },
      {
        peers: [
          { publicKey: TWO, allowedIps: [c], unknown: [] },
          { publicKey: THREE, allowedIps: [], unknown: [] },
        ],
        unknown: [],
      },
    ])
    assert.deepEqual(device, {
      ifindex: 7,
      name: 'wg0',
      listenPort: 1,
      peers: [
        { publicKey: ONE, allowedIps: [], unknown: [] },
        { publicKey: TWO, persistentKeepalive: 25, rxBytes: 5n, allowedIps: [a, b, c], unknown: [attribute] },
        { publicKey: THREE, allowedIps: [], unknown: [] },
      ],
      unknown: [attribute],
    })
  })

  test('is no device without a message', () => {
    assert.deepEqual(joinWireguard([]), { peers: [] })
  })

  test('is changed by one even when nothing is said', () => {
    assert.equal(setWireguard(30, { name: 'wg0' }, {}).length, 1)
  })
})

test('the name of a zone is not for the kernel', () => {
  const endpoint = { address: parseIp('fe80::1'), port: 1, zone: 'eth0' }
  const peers = [{ publicKey: ONE, endpoint, allowedIps: [] }]
  assert.throws(() => encodeWireguard({ peers }), {
    name: 'RangeError',
    message: 'zone eth0 of fe80::1: the kernel takes the index of a link',
  })
  assert.match(encodeUapiSet({ peers }), /^endpoint=\[fe80::1%eth0\]:1$/m)
  const broken = [{ publicKey: ONE, endpoint: { ...endpoint, zone: 'x\nlisten_port=1' }, allowedIps: [] }]
  assert.throws(() => encodeUapiSet({ peers: broken }), RangeError)
})

describe('the text protocol', () => {
  const hex = (byte: string) => byte.repeat(32)

  test('a change, in the order in which it is carried out', () => {
    const text = encodeUapiSet({
      privateKey: ONE,
      listenPort: 0,
      fwmark: 0,
      replacePeers: true,
      peers: [
        {
          publicKey: TWO,
          updateOnly: true,
          presharedKey: NO_KEY,
          endpoint: { address: parseIp('fd00::1'), port: 51820 },
          persistentKeepalive: 0,
          replaceAllowedIps: true,
          allowedIps: [parsePrefix('10.0.1.0/24'), parsePrefix('::/0')],
        },
        { publicKey: THREE, remove: true, allowedIps: [] },
      ],
    })
    assert.deepEqual(text.split('\n'), [
      'set=1',
      `private_key=${hex('01')}`,
      'listen_port=0',
      'fwmark=0',
      'replace_peers=true',
      `public_key=${hex('02')}`,
      'update_only=true',
      `preshared_key=${hex('00')}`,
      'endpoint=[fd00::1]:51820',
      'persistent_keepalive_interval=0',
      'replace_allowed_ips=true',
      'allowed_ip=10.0.1.0/24',
      'allowed_ip=::/0',
      `public_key=${hex('03')}`,
      'remove=true',
      '',
      '',
    ])
  })

  test('what is told of a peer, and keys of a later protocol', () => {
    const lines = [
      'a_later_key=1',
      `public_key=${hex('02')}`,
      'another_key=',
      'last_handshake_time_sec=1700000000',
      'last_handshake_time_nsec=5',
      'rx_bytes=18446744073709551615',
      'tx_bytes=1',
      'protocol_version=1',
      'errno=0',
    ]
    const { device } = decodeUapiAnswer(`${lines.join('\n')}\n\n`)
    const told = { lastHandshake: 1_700_000_000_000_000_005n, rxBytes: 2n ** 64n - 1n, txBytes: 1n }
    assert.deepEqual(device, { peers: [{ publicKey: TWO, ...told, protocolVersion: 1, allowedIps: [] }] })
  })

  for (const [wrong, message] of Object.entries({
    'listen_port=65536': 'listen_port is not a number from 0 to 65535, at byte 0',
    'listen_port=': 'listen_port is not a decimal number, at byte 0',
    [`public_key=${hex('00')}\nendpoint=[::1]:65536`]: 'endpoint is not a number from 0 to 65535, at byte 76',
    [`public_key=${hex('00')}\nendpoint=::1:1`]: 'endpoint is not an address and a port, at byte 76',
    [`public_key=${hex('00')}\nallowed_ip=10.0.0.0/33`]: 'allowed_ip is not a prefix, at byte 76',
    [`public_key=${hex('0')}`]: 'public_key is not a key of 64 hexadecimal digits, at byte 0',
    'fwmark=1\n\n': 'no errno at the end of the answer, at byte 20',
    fwmark: 'a line without "=", at byte 0',
  })) {
    test(`an answer that makes no sense: ${message}`, () => {
      assert.throws(
        () => decodeUapiAnswer(`${wrong}\nerrno=0\n\n`),
        (error: Error) => error instanceof DecodeError && error.message === message,
      )
    })
  }
})
