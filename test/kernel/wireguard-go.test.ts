/** WireGuard over the text protocol, with a real wireguard-go and `wg` as the judge. */

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseIp } from '../../src/address/ip.ts'
import { parsePrefix } from '../../src/address/prefix.ts'
import { NO_KEY, parseKey, type WireguardKey } from '../../src/address/key.ts'
import type { WireguardPeer } from '../../src/netlink/wireguard-device.ts'
import { changeWireguardProcess, readWireguardProcess } from '../../src/netlink/wireguard-socket.ts'
import { Host } from './namespace.ts'

const LINK = `twg${process.pid}`
const SOCKET = `/var/run/wireguard/${LINK}.sock`

const A: WireguardPeer = {
  publicKey: keyPair().publicKey,
  presharedKey: parseKey(Buffer.alloc(32, 7).toString('base64')),
  endpoint: { address: parseIp('192.168.1.11'), port: 51820 },
  persistentKeepalive: 0,
  allowedIps: [parsePrefix('10.10.11.0/24'), parsePrefix('fd00:10::/64')],
}
const B: WireguardPeer = {
  publicKey: keyPair().publicKey,
  endpoint: { address: parseIp('fd00::12'), port: 65535 },
  allowedIps: [],
}

describe('a wireguard-go', { timeout: 120_000 }, () => {
  let host: Host
  let process: ChildProcess
  const { privateKey, publicKey } = keyPair()

  before(async () => {
    host = await Host.create('192.168.1.10')
    process = spawn('nsenter', [`--net=${host.path}`, 'wireguard-go', LINK], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', WG_PROCESS_FOREGROUND: '1' },
      stdio: 'ignore',
    })
    for (let i = 0; i < 200 && !existsSync(SOCKET); i++) await sleep(50)
  })

  after(async () => {
    const ended = once(process, 'exit')
    process.kill()
    await ended
    await host[Symbol.asyncDispose]()
  })

  /** Lines of words: the device, then its peers in any order. */
  async function judge(): Promise<string[][]> {
    const lines = (await host.exec('wg', 'show', LINK, 'dump')).trimEnd().split('\n')
    return lines.map((line) => line.split('\t'))
  }

  test('takes a device with two peers and says the same, and so does wg', async () => {
    await changeWireguardProcess(LINK, {
      privateKey,
      listenPort: 51821,
      fwmark: 0x100,
      replacePeers: true,
      peers: [A, B],
    })
    const device = await readWireguardProcess(LINK)
    const reports = {
      lastHandshake: 0n,
      rxBytes: 0n,
      txBytes: 0n,
      protocolVersion: 1,
      persistentKeepalive: 0,
    }
    assert.deepEqual(sorted(device), {
      name: LINK,
      privateKey,
      listenPort: 51821,
      fwmark: 0x100,
      peers: [
        { ...reports, ...A },
        { ...reports, ...B, presharedKey: NO_KEY },
      ].toSorted(byKey),
    })
    const [own, ...peers] = await judge()
    assert.deepEqual(own, [privateKey, publicKey, '51821', '0x100'])
    assert.deepEqual(
      new Set(peers.map((words) => words.join(' '))),
      new Set([
        `${A.publicKey} ${A.presharedKey} 192.168.1.11:51820 ${A.allowedIps.join(',')} 0 0 0 off`,
        `${B.publicKey} (none) [fd00::12]:65535 (none) 0 0 0 off`,
      ]),
    )
  })

  test('changes what is said and leaves the rest', async () => {
    await changeWireguardProcess(LINK, {
      peers: [
        { publicKey: B.publicKey, allowedIps: [parsePrefix('10.10.12.0/24')], persistentKeepalive: 25 },
        { publicKey: keyPair().publicKey, updateOnly: true, allowedIps: [parsePrefix('10.10.13.0/24')] },
        { publicKey: A.publicKey, replaceAllowedIps: true, allowedIps: [parsePrefix('10.10.14.0/24')] },
      ],
    })
    const { peers } = await readWireguardProcess(LINK)
    const told = peers.toSorted(byKey).map((peer) => [peer.allowedIps, peer.persistentKeepalive])
    const expected = [A, B].toSorted(byKey)
    assert.deepEqual(
      told,
      expected.map((peer) => (peer === A ? [['10.10.14.0/24'], 0] : [['10.10.12.0/24'], 25])),
    )
    await changeWireguardProcess(LINK, { peers: [{ publicKey: A.publicKey, remove: true, allowedIps: [] }] })
    const left = await readWireguardProcess(LINK)
    assert.deepEqual(
      left.peers.map((peer) => peer.publicKey),
      [B.publicKey],
    )
  })

  test('a device of many peers comes in many pieces', async () => {
    const peers = Array.from({ length: 2000 }, (_, i) => ({
      publicKey: parseKey(Buffer.from(`${i}`.padStart(32, 'k')).toString('base64')),
      allowedIps: [parsePrefix(`10.${i >> 8}.${i & 255}.0/24`)],
    }))
    await changeWireguardProcess(LINK, { replacePeers: true, peers })
    const device = await readWireguardProcess(LINK)
    assert.deepEqual(
      device.peers.toSorted(byKey).map(({ publicKey: key, allowedIps }) => ({ publicKey: key, allowedIps })),
      peers.toSorted(byKey),
    )
  })

  test('a refused change keeps errno, operation and the meaning', async () => {
    await assert.rejects(changeWireguardProcess(LINK, { listenPort: 70_000 }), {
      name: 'UapiError',
      errno: 22,
      code: 'EINVAL',
      operation: `set=1 of ${LINK}`,
      message: `set=1 of ${LINK}: EINVAL: the process refused`,
    })
  })
})

describe('a process that does not do what it should', { timeout: 120_000 }, () => {
  const folder = `/run/tweed-lab/${LINK}`
  const name = 'twg0'
  const path = `${folder}/${name}.sock`

  /** The error of a request that a server answers like this. */
  async function refused(answer: string | undefined, end: boolean, timeout = 5000): Promise<Error> {
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      if (answer !== undefined) socket.write(answer)
      if (end) socket.end()
    })
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    server.listen(path)
    await once(server, 'listening')
    try {
      await readWireguardProcess(name, { folder, timeout })
    } catch (error) {
      assert.ok(error instanceof Error)
      return error
    } finally {
      server.close()
      rmSync(folder, { recursive: true })
    }
    return assert.fail('it answered')
  }

  test('is not there', async () => {
    await assert.rejects(readWireguardProcess('twg-none', { folder: '/run/tweed-lab' }), {
      name: 'UapiError',
      errno: 2,
      code: 'ENOENT',
      operation: 'get=1 of twg-none',
    })
  })

  test('does not answer in time', async () => {
    const error = await refused('listen_port=1\n', false, 100)
    assert.match(error.message, /^get=1 of twg0: ETIMEDOUT: no answer on .*twg0\.sock within 100 ms$/)
  })

  test('closes amid an answer', async () => {
    const error = await refused('listen_port=1\n', true)
    assert.match(error.message, /^get=1 of twg0: EPROTO: .*twg0\.sock closed before the end of an answer$/)
  })

  test('answers what makes no sense', async () => {
    const error = await refused('listen_port=x\nerrno=0\n\n', false)
    assert.deepEqual(
      [error.name, error.message],
      ['DecodeError', 'listen_port is not a decimal number, at byte 0'],
    )
  })

  test('is no file elsewhere', async () => {
    await assert.rejects(readWireguardProcess('../x'), RangeError)
  })
})

function keyPair(): { readonly privateKey: WireguardKey; readonly publicKey: WireguardKey } {
  const pair = generateKeyPairSync('x25519')
  const last = (der: Buffer): Buffer => Buffer.from(der.subarray(der.length - 32))
  const secret = last(pair.privateKey.export({ type: 'pkcs8', format: 'der' }))
  // As every WireGuard keeps it (RFC 7748, 5).
  secret[0] = (secret[0] ?? 0) & 248
  secret[31] = ((secret[31] ?? 0) & 127) | 64
  return {
    privateKey: parseKey(secret.toString('base64')),
    publicKey: parseKey(last(pair.publicKey.export({ type: 'spki', format: 'der' })).toString('base64')),
  }
}

function sorted<T extends { readonly peers: readonly WireguardPeer[] }>(device: T): T {
  return { ...device, peers: device.peers.toSorted(byKey) }
}

function byKey(a: { readonly publicKey: string }, b: { readonly publicKey: string }): number {
  return a.publicKey < b.publicKey ? -1 : 1
}
