/**
 * Leases that somebody broke, or wrote to do harm: each is refused or ignored, said once, counted, and shown; nothing
 * of it reaches a kernel, and between the hosts no packet is lost.
 */

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { ip } from '../../src/lab/command.ts'
import { printable } from '../../src/status/printable.ts'
import type { PeerState, PeerStatus, Status } from '../../src/status/status.ts'
import { tweed } from '../tweed.ts'
import type { Agent } from './agent.ts'
import { fakePeer, Overlay, picture, vxlanValue } from './overlay.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'
const MAC = '02:00:00:00:be:ef'
const PUBLIC_IP = '192.168.1.30'
const MEGABYTE = 'x'.repeat(1024 * 1024)

interface Hostile {
  readonly key: string
  readonly value: string
  readonly state: PeerState
  /** On host-A; on host-B where there is only one. */
  readonly why: RegExp
  readonly whyOnB?: RegExp
  /** On host-B there is nothing wrong with it: it stands for host-A's own public IP. */
  readonly goodOnB?: true
}

/** With a subnet of its own each, so that they can stand beside each other. */
function refused(value: string, why: RegExp, key = `10.10.${third.next().value}.0-24`): Hostile {
  return { key, value, state: 'refused', why }
}

const third = (function* () {
  for (let n = 30; n < 100; n++) yield n
  throw new Error('too many')
})()

function withMac(mac: unknown, why: RegExp): Hostile {
  return refused(vxlanValue(PUBLIC_IP, mac), why)
}

function withData(data: unknown, why = /^BackendData .* has no VtepMAC$/): Hostile {
  const value = { PublicIP: PUBLIC_IP, BackendType: 'vxlan', BackendData: data }
  return refused(JSON.stringify(value), why)
}

/** A good value under a key that is not. */
function withKey(key: string, why: RegExp, whyOnB = why): Hostile {
  return { ...refused(vxlanValue(PUBLIC_IP, MAC), why, key), whyOnB }
}

function withPublicIp(publicIp: string, why: RegExp): Hostile {
  return refused(vxlanValue(publicIp, MAC), why)
}

/** @param macs Of host-A and host-B. */
function hostileLeases([macA, macB]: readonly [string, string]): Record<string, Hostile> {
  const olderB = /overlaps the older lease 10\.10\.11\.0-24$/
  const olderA = /overlaps the older lease 10\.10\.10\.0-24$/
  const own = /overlaps our own subnet 10\.10\.1[01]\.0\/24$/
  return {
    'a junk key': withKey('junk', /^"junk" is not a lease key/),
    'a key with terminal controls': withKey('\u001b[2J\nroot', /is not a lease key/),
    'a key of one address': withKey('10.10.30.1-32', /is not a subnet$/),
    'a key of a megabyte': withKey(MEGABYTE, /is not a lease key/),
    'no JSON': refused('{"PublicIP":', /^the value is not JSON: /),
    'no object': refused('[]', /not a JSON object$/),
    'no public IP': refused('{"BackendType":"vxlan"}', /^PublicIP is missing$/),
    'a megabyte that is no JSON': refused(MEGABYTE, /^the value is not JSON: /),
    'a public IP of a megabyte': refused(
      vxlanValue(MEGABYTE, MAC),
      /^PublicIP is "xxx.*, not an IPv4 address$/,
    ),
    'a MAC of a megabyte': withMac(MEGABYTE, /xxx.* is not a MAC address/),
    'outside the network': withKey('10.11.0.0-24', /outside the network 10\.10\.0\.0\/16$/),
    'wider than the network': withKey('10.0.0.0-8', /outside the network 10\.10\.0\.0\/16$/),
    'the whole network': withKey('10.10.0.0-16', own),
    'half of the subnet of A': withKey('10.10.10.128-25', own, olderA),
    'the subnet of A and more': withKey('10.10.8.0-22', own),
    'half of the subnet of B': withKey('10.10.11.128-25', olderB, own),
    'our own public IP': {
      ...withPublicIp('192.168.1.10', /^public IP 192\.168\.1\.10 is our own$/),
      goodOnB: true,
    },
    'a loopback public IP': withPublicIp('127.0.0.1', /is a loopback address$/),
    'a multicast public IP': withPublicIp('239.1.1.1', /is a multicast address$/),
    'the unspecified public IP': withPublicIp('0.0.0.0', /is the unspecified address$/),
    'the broadcast public IP': withPublicIp('255.255.255.255', /is the broadcast address$/),
    'a multicast MAC': withMac('01:00:5e:00:00:01', /is not a unicast address$/),
    'the zero MAC': withMac('00:00:00:00:00:00', /is not a unicast address$/),
    'the broadcast MAC': withMac('ff:ff:ff:ff:ff:ff', /is not a unicast address$/),
    'the MAC of A': {
      ...withMac(macA, /is our own$/),
      whyOnB: /is that of the older lease 10\.10\.10\.0-24/,
    },
    'the MAC of B': {
      ...withMac(macB, /is that of the older lease 10\.10\.11\.0-24/),
      whyOnB: /is our own$/,
    },
    'no MAC': withMac(5, /has no VtepMAC$/),
    'data that is text': withData('02:00:00:00:be:ef'),
    'data that is a list': withData([MAC]),
    'no data': withData(null, /^it has no BackendData$/),
    'IPv6 alone': refused(
      JSON.stringify({ PublicIPv6: 'fd00::1', BackendType: 'vxlan', BackendV6Data: { VtepMAC: MAC } }),
      /^it has no public IP for 10\.10\.29\.0\/24$/,
      '10.10.29.0-24&fd80:0:0:48::-64',
    ),
    'another backend': {
      ...refused(
        `{"PublicIP":"${PUBLIC_IP}","BackendType":"host-gw"}`,
        /^its backend is host-gw, ours is vxlan$/,
      ),
      state: 'ignored',
    },
    'another backend with terminal controls': {
      ...refused(
        `{"PublicIP":"${PUBLIC_IP}","BackendType":"\\u001b[2J"}`,
        /^its backend is .*, ours is vxlan$/,
      ),
      state: 'ignored',
    },
    'a reservation': {
      ...refused(`{"PublicIP":"${PUBLIC_IP}"}`, /^no host has claimed it yet$/),
      state: 'ignored',
    },
  }
}

let overlay: Overlay
let agents: [Agent, Agent]
let hostile: Record<string, Hostile>

before(async () => {
  overlay = await Overlay.connect(CONFIG)
  agents = [overlay.agent(0), overlay.agent(1)]
  const [a, b] = await Promise.all(agents.map((agent) => agent.status()))
  hostile = hostileLeases([a?.mac ?? '', b?.mac ?? ''])
})

afterEach(() => overlay.sql("DELETE FROM leases WHERE key NOT IN ('10.10.10.0-24', '10.10.11.0-24')"))

after(() => overlay[Symbol.asyncDispose]())

/** The hosts on which it must have no effect, each with the reason that it must give. */
function refusers({ why, whyOnB = why, goodOnB }: Hostile): [Agent, RegExp][] {
  const [a, b] = agents
  return goodOnB
    ? [[a, why]]
    : [
        [a, why],
        [b, whyOnB],
      ]
}

/** What a host says of it: by its subnet, or by its key where that cannot be read. */
function shown({ peers }: Status, { key }: Hostile): PeerStatus | undefined {
  const names = [printable(key), key.replace('-', '/').replace(/&.*/, '')]
  return peers.find(({ subnet }) => names.includes(subnet))
}

function isRefused(status: Status, lease: Hostile, why: RegExp): boolean {
  const found = shown(status, lease)
  return found?.state === lease.state && why.test(found.why)
}

async function operations(): Promise<number[]> {
  const statuses = await Promise.all(agents.map((agent) => agent.status()))
  return statuses.map(({ counters }) => counters.operations)
}

test('each alone is refused with its reason, and changes nothing', async () => {
  await overlay.undisturbed(async () => {
    for (const [name, lease] of Object.entries(hostile)) {
      const before = await Promise.all(refusers(lease).map(([{ host }]) => picture(host)))
      const work = await operations()
      overlay.writeLease(lease.key, lease.value)
      for (const [agent, why] of refusers(lease)) {
        await agent.untilStatus(`refuses ${name}`, (status) => isRefused(status, lease, why))
      }
      assert.deepEqual(await Promise.all(refusers(lease).map(([{ host }]) => picture(host))), before, name)
      overlay.removeLease(lease.key)
      for (const agent of agents) {
        await agent.untilStatus('forgets it', ({ peers }) => peers.length === 1)
      }
      if (!lease.goodOnB) assert.deepEqual(await operations(), work, name)
    }
  })
})

test('all at once: every one is shown, counted and said once, in lines of bounded length; the good go on', async () => {
  const before = await overlay.pictures()
  const [a] = agents
  const cases = Object.values(hostile)
  const bad = cases.filter(({ state }) => state === 'refused')
  await overlay.undisturbed(async () => {
    const marks = a.log.length
    const { leasesRefused } = (await a.status()).counters
    for (const { key, value } of cases) overlay.writeLease(key, value)
    const { key, subnet, value } = fakePeer(200)
    overlay.writeLease(key, value)
    for (const agent of agents) {
      await agent.untilPeer(subnet, 'in sync')
      assert.match(await ip(agent.host.namespace, 'route show dev flannel.1'), /^10\.10\.200\.0\/24 /m)
    }
    const { code, stdout } = await tweed('status', '--json', `--subnet-file=${a.host.subnetFile}`)
    assert.equal(code, 1)
    const status = JSON.parse(stdout) as Status
    for (const [name, lease] of Object.entries(hostile)) {
      assert.ok(isRefused(status, lease, lease.why), `${name}: ${JSON.stringify(shown(status, lease))}`)
    }
    assert.equal(status.peers.length, cases.length + 2)
    assert.equal(status.counters.leasesRefused - leasesRefused, bad.length)
    assert.equal(a.said(/^lease refused: /, marks).length, bad.length)
    assert.equal(a.said(/^lease ignored: /, marks).length, cases.length - bad.length)
    const lengths = a.stderr.split('\n').map((line) => line.length)
    assert.ok(Math.max(...lengths) < 1000, `a line of ${Math.max(...lengths)}`)
    const table = await tweed('status', `--subnet-file=${a.host.subnetFile}`)
    assert.ok(!table.stdout.includes('\u001b[2J'))

    for (const lease of [...cases, { key }]) overlay.removeLease(lease.key)
    for (const agent of agents) await agent.untilStatus('is alone with B', ({ peers }) => peers.length === 1)
    assert.equal(a.said(/^peer left$/, marks).length, 1, 'only a peer that was one can leave')
  })
  assert.deepEqual(await overlay.pictures(), before)
})

test('a dual-stack lease is a peer in the family that the network has', async () => {
  const { key, subnet } = fakePeer(201)
  const value = JSON.stringify({
    PublicIP: '192.168.1.201',
    PublicIPv6: 'fd00::201',
    BackendType: 'vxlan',
    BackendData: { VNI: 1, VtepMAC: MAC },
    BackendV6Data: { VNI: 1, VtepMAC: '02:00:00:00:be:f0' },
  })
  await overlay.undisturbed(async () => {
    overlay.writeLease(`${key}&fd80:0:0:48::-64`, value)
    for (const agent of agents) await agent.untilPeer(subnet, 'in sync')
    overlay.removeLease(`${key}&fd80:0:0:48::-64`)
    for (const agent of agents) await agent.untilPeerGone(subnet)
  })
})
