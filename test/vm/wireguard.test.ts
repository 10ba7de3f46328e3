/** WireGuard in the kernel, with `wg` as the judge: on a kernel that has it. */

import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { parseIp } from '../../src/address/ip.ts'
import { parsePrefix, subPrefixes } from '../../src/address/prefix.ts'
import { Connection } from '../../src/netlink/connection.ts'
import { decodeFamily, getFamily, NETLINK_GENERIC } from '../../src/netlink/generic.ts'
import {
  decodeWireguard,
  getWireguard,
  joinWireguard,
  setWireguard,
  WIREGUARD,
  type WireguardLink,
} from '../../src/netlink/wireguard.ts'
import { NO_KEY, parseKey } from '../../src/address/key.ts'
import type { WireguardDevice, WireguardPeer } from '../../src/netlink/wireguard-device.ts'
import { Host } from '../kernel/namespace.ts'

const LINK = 'flannel-wg'
const PORT = 51820
/** Of any 32 bytes the kernel makes a private key by setting some bits, which these have. */
const PRIVATE = parseKey(Buffer.alloc(32, 0x40).toString('base64'))
/** Of `wg pubkey`. */
const PUBLIC = parseKey('17XoHTNuV4sTuNcG6C0GHjA4yWvOZs3PUNVmuW3buhA=')

const A: WireguardPeer = {
  publicKey: keyOf(1),
  presharedKey: keyOf(7),
  endpoint: { address: parseIp('192.168.1.11'), port: 51820 },
  persistentKeepalive: 25,
  allowedIps: [parsePrefix('10.10.11.0/24'), parsePrefix('fd00:10::/64')],
}
const B: WireguardPeer = {
  publicKey: keyOf(2),
  presharedKey: NO_KEY,
  endpoint: { address: parseIp('fe80::12'), port: 65535, zone: '1' },
  persistentKeepalive: 0,
  allowedIps: [],
}
/** What the kernel tells of a peer that was never heard of. */
const NOTHING = { lastHandshake: 0n, rxBytes: 0n, txBytes: 0n, protocolVersion: 1, unknown: [] }

describe('a WireGuard device', { timeout: 120_000 }, () => {
  let host: Host
  let connection: Connection
  let family: number
  let link: WireguardLink & { readonly ifindex: number }

  before(async () => {
    host = await Host.create('192.168.1.10')
    await host.ip(`link add ${LINK} type wireguard`)
    link = { ifindex: await host.index(LINK) }
    connection = Connection.open({ netns: host.path, protocol: NETLINK_GENERIC })
    const { id } = decodeFamily((await connection.get(getFamily(WIREGUARD))).payload)
    assert.ok(id !== undefined)
    family = id
  })

  after(async () => {
    connection.close()
    await host[Symbol.asyncDispose]()
  })

  beforeEach(async () => {
    await change({ privateKey: NO_KEY, fwmark: 0, replacePeers: true })
  })

  async function change(device: Partial<WireguardDevice>): Promise<void> {
    for (const error of (await connection.batch(setWireguard(family, link, device))).values()) throw error
  }

  async function read(by: WireguardLink = link): Promise<{ device: WireguardDevice; messages: number }> {
    const parts: WireguardDevice[] = []
    await connection.dump(getWireguard(family, by), ({ payload }) => parts.push(decodeWireguard(payload)))
    return { device: joinWireguard(parts), messages: parts.length }
  }

  /** Lines of words: the device, then its peers. */
  async function judge(): Promise<string[][]> {
    const lines = (await host.exec('wg', 'show', LINK, 'dump')).trimEnd().split('\n')
    return lines.map((line) => line.split('\t'))
  }

  test('takes two peers and says the same, by index and by name, and so does wg', async () => {
    await change({ privateKey: PRIVATE, listenPort: PORT, fwmark: 0x100, replacePeers: true, peers: [A, B] })
    const { device } = await read()
    assert.deepEqual(device, {
      ifindex: link.ifindex,
      name: LINK,
      privateKey: PRIVATE,
      publicKey: PUBLIC,
      listenPort: PORT,
      fwmark: 0x100,
      peers: [
        { ...NOTHING, ...A },
        { ...NOTHING, ...B },
      ],
      unknown: [],
    })
    assert.deepEqual((await read({ name: LINK })).device, device)
    const [own, ...peers] = await judge()
    assert.deepEqual(own, [PRIVATE, PUBLIC, `${PORT}`, '0x100'])
    assert.deepEqual(
      peers.map((words) => words.join(' ')),
      [
        `${A.publicKey} ${A.presharedKey} 192.168.1.11:51820 ${A.allowedIps.join(',')} 0 0 0 25`,
        `${B.publicKey} (none) [fe80::12%lo]:65535 (none) 0 0 0 off`,
      ],
    )
  })

  test('changes what is said and leaves the rest', async () => {
    await change({ listenPort: PORT, peers: [A, B] })
    await change({
      peers: [
        { publicKey: A.publicKey, replaceAllowedIps: true, allowedIps: [parsePrefix('10.10.14.0/24')] },
        { publicKey: B.publicKey, presharedKey: A.presharedKey, allowedIps: [parsePrefix('10.10.12.0/24')] },
        { publicKey: keyOf(3), updateOnly: true, allowedIps: [parsePrefix('10.10.13.0/24')] },
      ],
    })
    const { device } = await read()
    assert.equal(device.listenPort, PORT)
    assert.deepEqual(device.peers, [
      { ...NOTHING, ...A, allowedIps: ['10.10.14.0/24'] },
      { ...NOTHING, ...B, presharedKey: A.presharedKey, allowedIps: ['10.10.12.0/24'] },
    ])
    await change({ peers: [{ publicKey: A.publicKey, remove: true, allowedIps: [] }] })
    assert.deepEqual(
      (await judge()).slice(1).map(([publicKey]) => publicKey),
      [B.publicKey],
    )
  })

  test('has no keys when it was given none', async () => {
    const { device } = await read()
    assert.deepEqual([device.privateKey, device.publicKey, device.peers], [undefined, undefined, []])
  })

  test('of a thousand peers is changed and told in several messages', async () => {
    const peers = Array.from({ length: 1000 }, (_, i) => ({
      publicKey: keyOf(1000 + i),
      allowedIps: [parsePrefix(`10.${i >> 8}.${i & 255}.0/24`)],
    }))
    assert.ok(setWireguard(family, link, { peers }).length > 1)
    await change({ replacePeers: true, peers })
    const { device, messages } = await read()
    assert.ok(messages > 1, `${messages} messages`)
    assert.deepEqual(
      device.peers.map(({ publicKey, allowedIps }) => ({ publicKey, allowedIps })),
      peers,
    )
  })

  test('with a peer whose allowed IPs go on in the next message', async () => {
    const allowedIps = [...subPrefixes(parsePrefix('10.0.0.0/13'), 24)]
    for (let i = 0; i < allowedIps.length; i += 1000) {
      await change({ peers: [{ publicKey: A.publicKey, allowedIps: allowedIps.slice(i, i + 1000) }] })
    }
    const { device, messages } = await read()
    assert.ok(messages > 1, `${messages} messages`)
    assert.equal(device.peers.length, 1)
    assert.deepEqual(new Set(device.peers[0]?.allowedIps), new Set(allowedIps))
    assert.equal(device.peers[0]?.allowedIps.length, allowedIps.length)
  })

  test('is no other kind of link, and no link that is not there', async () => {
    await assert.rejects(read({ name: 'eth0' }), {
      code: 'EOPNOTSUPP',
      operation: 'WG_CMD_GET_DEVICE eth0',
    })
    await assert.rejects(read({ ifindex: 9999 }), { code: 'ENODEV' })
    const [error] = (
      await connection.batch(setWireguard(family, { name: 'eth0' }, { listenPort: PORT }))
    ).values()
    assert.equal(error?.message, 'WG_CMD_SET_DEVICE eth0: EOPNOTSUPP')
  })
})

function keyOf(seed: number): ReturnType<typeof parseKey> {
  return parseKey(Buffer.from(`${seed}`.padStart(32, 'k')).toString('base64'))
}
