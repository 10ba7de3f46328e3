/**
 * The codecs of generic netlink against bytes that they did not make: what the kernel says to `ethtool` and `wg`, and
 * what these send.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import {
  decodeFeatures,
  ETHTOOL_MSG_FEATURES_NTF,
  ETHTOOL_MSG_FEATURES_SET_REPLY,
  featureState,
  getFeatures,
  setFeatures,
  TX_CHECKSUM_IP_GENERIC,
} from '../src/netlink/ethtool.ts'
import { decodeFamily, decodeGenericHeader, getFamily } from '../src/netlink/generic.ts'
import { decodeAck, type Message, NLM_F_ACK, NLMSG_DONE, NLMSG_ERROR } from '../src/netlink/message.ts'
import { decodeWireguard, getWireguard, setWireguard } from '../src/netlink/wireguard.ts'
import { NO_KEY, parseKey } from '../src/address/key.ts'
import type { WireguardDevice } from '../src/netlink/wireguard-device.ts'
import { readVector } from './vectors/netlink.ts'

const CONTROLLER = 16
/** On the machine of the capture. */
const ETHTOOL_FAMILY = 21
const FLANNEL = 20
/** On the other machine. */
const WIREGUARD_FAMILY = 32
const GENLMSGHDR = 4

const key = (byte: number) => parseKey(Buffer.alloc(32, byte).toString('base64'))
const ONE = {
  publicKey: parseKey('a2tra2tra2tra2tra2tra2tra2tra2tra2tra2trazE='),
  presharedKey: key(7),
  endpoint: { address: parseIp('192.168.1.11'), port: 51820 },
  persistentKeepalive: 25,
  allowedIps: [parsePrefix('10.10.11.0/24'), parsePrefix('fd00:10::/64')],
}
const TWO = {
  publicKey: parseKey('a2tra2tra2tra2tra2tra2tra2tra2tra2tra2trazI='),
  endpoint: { address: parseIp('fe80::12'), port: 65535, zone: '1' },
  allowedIps: [],
}
const DEVICE = { privateKey: key(0x40), listenPort: 51820, fwmark: 0x100 }

describe('what the kernel says', () => {
  test('a family and its multicast groups', () => {
    const [answer] = readVector('ethtool-features-show').received
    assert.ok(answer)
    const { id, name, version, groups } = decodeFamily(answer.payload)
    assert.deepEqual([id, name, version, [...groups]], [ETHTOOL_FAMILY, 'ethtool', 1, [['monitor', 6]]])
  })

  test('features in the compact form, which has no names', () => {
    const { changeable, wanted, active, fixed, ...others } = told('ethtool-features-show', 0)
    assert.deepEqual(others, { command: 11, ifindex: FLANNEL, name: 'flannel.1', unknown: [] })
    assert.deepEqual([changeable?.whole, changeable?.size, changeable?.bits.length], [false, 64, 64])
    const on = wanted?.bits.map(({ index }) => index)
    assert.deepEqual(on, [0, 3, 6, 11, 14, 16, 18, 19, 20, 30, 33, 34, 35, 40])
    assert.deepEqual(active, wanted)
    assert.equal(fixed?.whole, true)
  })

  test('what a change did', () => {
    const { command, wanted, active } = told('ethtool-features-off', 1)
    assert.equal(command, ETHTOOL_MSG_FEATURES_SET_REPLY)
    assert.deepEqual(wanted, { whole: false, size: 64, bits: [] })
    const off = [3, 16, 18, 19, 20, 33].map((index) => ({ index, on: false }))
    assert.deepEqual(active, { whole: false, size: 64, bits: off })
  })

  test('what a change could not do', () => {
    const { wanted, active } = told('ethtool-features-refused', 1)
    assert.deepEqual(wanted?.bits, [{ index: 16, on: true }])
    assert.deepEqual(active?.bits, [])
  })

  test('a notification', () => {
    const messages = readVector('ethtool-features-monitor').received.filter(({ sequence }) => sequence > 3)
    const [notification] = messages.filter(ofEthtool).map(({ payload }) => decodeFeatures(payload))
    assert.equal(notification?.command, ETHTOOL_MSG_FEATURES_NTF)
    assert.equal(notification?.ifindex, FLANNEL)
    assert.ok(notification?.active?.bits.some(({ index, on }) => index === 3 && on))
    assert.equal(featureState(notification, TX_CHECKSUM_IP_GENERIC), undefined)
  })
})

describe('what the kernel says of WireGuard', () => {
  test('a device with two peers', () => {
    const [device] = readVector('wireguard-show')
      .received.filter(({ type }) => type === WIREGUARD_FAMILY)
      .map(({ payload }) => decodeWireguard(payload))
    const reports = { lastHandshake: 0n, rxBytes: 0n, txBytes: 0n, protocolVersion: 1, unknown: [] }
    assert.deepEqual(device, {
      ...DEVICE,
      ifindex: 30,
      name: 'wg0',
      // Of `wg pubkey`.
      publicKey: '17XoHTNuV4sTuNcG6C0GHjA4yWvOZs3PUNVmuW3buhA=',
      peers: [
        { ...reports, ...ONE },
        { ...reports, ...TWO, presharedKey: NO_KEY, persistentKeepalive: 0 },
      ],
      unknown: [],
    })
  })

  test('that a link is no WireGuard device', () => {
    const refusal = readVector('wireguard-show-unknown').received.findLast(({ type }) => type === NLMSG_ERROR)
    assert.ok(refusal)
    assert.equal(
      decodeAck(refusal, getWireguard(WIREGUARD_FAMILY, { name: 'lo' }).operation)?.message,
      'WG_CMD_GET_DEVICE lo: EOPNOTSUPP',
    )
    assert.ok(readVector('wireguard-show').received.some(({ type }) => type === NLMSG_DONE))
  })
})

describe('what wg sends, we send', () => {
  const changes: Readonly<Record<string, Partial<WireguardDevice>>> = {
    'wireguard-set': { ...DEVICE, peers: [{ ...ONE, replaceAllowedIps: true }, TWO] },
    'wireguard-set-removed': { peers: [{ publicKey: TWO.publicKey, remove: true, allowedIps: [] }] },
  }
  for (const [vector, change] of Object.entries(changes)) {
    const { command, sent: requests } = readVector(vector)
    test(command, () => {
      const expected = requests.find(({ type }) => type === WIREGUARD_FAMILY)
      assert.ok(expected)
      const [request, ...others] = setWireguard(WIREGUARD_FAMILY, { name: 'wg0' }, change)
      assert.ok(request)
      assert.deepEqual(others, [])
      assert.equal(request.flags | NLM_F_ACK, expected.flags)
      assert.deepEqual(decodeGenericHeader(request.payload), decodeGenericHeader(expected.payload))
      // In another order of the attributes.
      assert.deepEqual(decodeWireguard(request.payload), decodeWireguard(expected.payload))
      assert.equal(request.payload.length, expected.payload.length)
    })
  }

  test(readVector('wireguard-set-configuration').command, () => {
    const request = readVector('wireguard-set-configuration').sent.find(
      ({ type }) => type === WIREGUARD_FAMILY,
    )
    assert.ok(request)
    assert.deepEqual(decodeWireguard(request.payload), {
      name: 'wg0',
      privateKey: NO_KEY,
      listenPort: 51821,
      fwmark: 0,
      replacePeers: true,
      peers: [
        {
          publicKey: TWO.publicKey,
          replaceAllowedIps: true,
          allowedIps: ['10.10.12.0/24'],
          unknown: [],
        },
      ],
      unknown: [],
    })
  })

  test(readVector('wireguard-show').command, () => {
    const expected = readVector('wireguard-show').sent.find(({ type }) => type === WIREGUARD_FAMILY)
    assert.ok(expected)
    const request = getWireguard(WIREGUARD_FAMILY, { name: 'wg0' })
    assert.deepEqual(
      [request.flags | NLM_F_ACK, bytes(request.payload)],
      [expected.flags, bytes(expected.payload)],
    )
  })
})

describe('what ethtool sends, we send', () => {
  test('for a family', () => {
    const [expected] = readVector('ethtool-features-show').sent
    assert.ok(expected)
    const request = getFamily('ethtool')
    assert.deepEqual([request.type, request.flags | NLM_F_ACK], [CONTROLLER, expected.flags])
    assert.deepEqual(bytes(request.payload), bytes(expected.payload))
  })

  test('for features', () => {
    const { command, name } = sent('ethtool-features-show')
    assert.equal(name, 'flannel.1')
    assert.deepEqual(decodeFeatures(getFeatures(ETHTOOL_FAMILY, FLANNEL).payload), {
      command,
      ifindex: FLANNEL,
      unknown: [],
    })
  })

  for (const [vector, change] of Object.entries({
    'ethtool-features-off': { [TX_CHECKSUM_IP_GENERIC]: false },
    'ethtool-features-refused': { 'tx-tcp-segmentation': true },
  })) {
    test(readVector(vector).command, () => {
      const expected = readVector(vector).sent.findLast(ofEthtool)
      assert.ok(expected)
      const request = setFeatures(expected.type, FLANNEL, change)
      assert.equal(request.flags | NLM_F_ACK, expected.flags)
      assert.equal(request.payload[0], expected.payload[0])
      // It names the link and asks for the compact form, we number it and do not; it pads with what is in its memory.
      const { wanted, changeable, active, fixed, unknown } = decodeFeatures(request.payload)
      assert.deepEqual(
        { ...decodeFeatures(expected.payload), ifindex: undefined, name: undefined },
        { command: 12, ifindex: undefined, name: undefined, wanted, unknown },
      )
      assert.deepEqual([changeable, active, fixed], [undefined, undefined, undefined])
      assert.equal(behindHeader(request.payload).length, behindHeader(expected.payload).length)
    })
  }
})

/** What the kernel says to an `ethtool`, in the order in which it says it. */
function told(vector: string, index: number): ReturnType<typeof decodeFeatures> {
  const messages = readVector(vector).received.filter(ofEthtool)
  const message = messages[index]
  assert.ok(message)
  return decodeFeatures(message.payload)
}

function sent(vector: string): ReturnType<typeof decodeFeatures> {
  const message = readVector(vector).sent.find(ofEthtool)
  assert.ok(message)
  return decodeFeatures(message.payload)
}

function ofEthtool({ type }: Message): boolean {
  return type === ETHTOOL_FAMILY
}

/** Without ETHTOOL_A_FEATURES_HEADER, the first attribute. */
function behindHeader(payload: Uint8Array): Uint8Array {
  const length = Buffer.from(payload).readUInt16LE(GENLMSGHDR)
  return payload.subarray(GENLMSGHDR + length)
}

function bytes(payload: Uint8Array): string {
  return Buffer.from(payload).toString('hex')
}
