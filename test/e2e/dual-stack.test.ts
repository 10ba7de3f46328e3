/** IPv6 alone and beside IPv4, from the command line to the packets: the agent's own side of it. */

import assert from 'node:assert/strict'
import { readFile, rm } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { ipFamily } from '../../src/address/ip.ts'
import { bridge, ip, run } from '../../src/lab/command.ts'
import type { Lease } from '../../src/lease/lease.ts'
import { machineState, tweed } from '../tweed.ts'
import type { Agent } from './agent.ts'
import { assertReaches, configOf, containersOf, FAMILIES, statusOf, subnetEnvOf } from './families.ts'
import { Overlay } from './overlay.ts'

let machine: string
before(async () => {
  machine = await machineState()
})
after(async () => {
  assert.equal(await machineState(), machine)
})

for (const [family, registry] of [
  ['inet6', 'sqlite'],
  ['dual', 'sqlite'],
  ['inet6', 'etcd'],
  ['dual', 'etcd'],
] as const) {
  const families = FAMILIES[family]

  describe(`two hosts, ${family} over ${registry}`, () => {
    let overlay: Overlay
    before(async () => {
      overlay = await Overlay.connect(configOf(family), registry, family)
    })
    after(() => overlay?.[Symbol.asyncDispose]())

    test('containers reach each other, and hosts reach containers, over each family', async () => {
      const [a, b] = [overlay.host(0), overlay.host(1)]
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        assert.deepEqual(containersOf(to).map(ipFamily), families)
        for (const destination of containersOf(to)) {
          await assertReaches(from.container, destination)
          await assertReaches(from, destination)
        }
      }
    })

    test('subnet.env is as flannel writes it', async () => {
      assert.equal(await readFile(overlay.host(0).subnetFile, 'utf8'), subnetEnvOf(family))
    })

    test('status, leases and the log say each family, and no other', async () => {
      const status = await overlay.agent(0).status()
      assert.partialDeepStrictEqual(status, statusOf(family))
      assert.deepEqual(status.problems, [])
      const [peer] = status.peers
      const { subnets, publicIps } = overlay.host(1)
      assert.deepEqual(peer, {
        subnet: subnets.inet ?? '',
        ipv6Subnet: subnets.inet6 ?? '',
        publicIp: publicIps.inet ?? '',
        publicIpv6: publicIps.inet6 ?? '',
        state: 'in sync',
        why: '',
      })
      const [line] = overlay.agent(0).said(/^lease acquired$/)
      const told = { subnet: line?.['subnet'] ?? '', ipv6Subnet: line?.['ipv6Subnet'] ?? '' }
      assert.deepEqual({ ...told, expires: null }, status.lease)
    })

    test('an agent that comes again has nothing to do', async () => {
      const agent = overlay.agent(0)
      const { lease } = await agent.status()
      assert.equal(await agent.end('SIGTERM'), 0)
      const again = overlay.start(overlay.host(0))
      await again.untilReady()
      assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0)
      assert.deepEqual((await again.status()).lease, lease)
    })
  })
}

test('without reservations, hosts of an IPv6 network get subnets of their own and come back to them', async () => {
  const range = '"IPv6SubnetMin": "fd00:10:10:100::", "IPv6SubnetMax": "fd00:10:10:1ff::"'
  const config = configOf('inet6').replace('"Backend"', `${range}, "Backend"`)
  await using overlay = await Overlay.build(2, config, 'sqlite', 'inet6')
  const subnets: string[] = []
  for (const host of overlay.hosts) {
    const agent = overlay.start(host)
    await agent.untilReady()
    subnets.push((await agent.status()).lease.ipv6Subnet)
  }
  assert.equal(new Set(subnets).size, 2, subnets.join(' '))
  for (const subnet of subnets) assert.match(subnet, /^fd00:10:10:1[0-9a-f]{2}::\/64$/)
  const { stdout } = await tweed('leases', 'list', '--json', `--registry=sqlite:${overlay.lab.registryPath}`)
  const leases: readonly Pick<Lease, 'subnets' | 'publicIps'>[] = JSON.parse(stdout)
  assert.deepEqual(
    new Map(leases.map((lease) => [lease.publicIps.inet6, lease.subnets.inet6])),
    new Map(overlay.hosts.map(({ publicIps }, i) => [publicIps.inet6, subnets[i]])),
  )
  await overlay.killAgents()
  // By its public IP: nothing says what it had.
  const host = overlay.host(0)
  await rm(host.subnetFile)
  const again = overlay.start(host)
  await again.untilReady()
  assert.equal((await again.status()).lease.ipv6Subnet, subnets[0])
})

describe('a network of both families', () => {
  let overlay: Overlay
  let agent: Agent
  before(async () => {
    overlay = await Overlay.build(1, configOf('dual'), 'sqlite', 'dual')
    agent = overlay.start(overlay.host(0), '--ip-blackhole-route')
    await agent.untilReady()
  })
  after(() => overlay?.[Symbol.asyncDispose]())

  const V4 = '"PublicIP":"192.168.1.20","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:20"}'
  const V6 = '"PublicIPv6":"fd00:192::20","BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:20"}'
  const value = (...parts: string[]): string => `{"BackendType":"vxlan",${parts.join(',')}}`

  test('each own subnet ends in a blackhole', async () => {
    const { namespace } = overlay.host(0)
    assert.match(await ip(namespace, '-4 route show'), /^blackhole 10\.10\.10\.0\/24 proto 84/m)
    assert.match(await ip(namespace, '-6 route show'), /^blackhole fd00:10:10:10::\/64 .*proto 84/m)
  })

  test('a host that has one family only is reached over that, and nobody falls over it (V7)', async () => {
    const { namespace } = overlay.host(0)
    for (const [key, text, family] of [
      ['10.10.20.0-24', value(V4), 'inet'],
      ['0.0.0.0-0&fd00:10:10:20::-64', value(V6), 'inet6'],
    ] as const) {
      overlay.writeLease(key, text)
      const { inet, inet6 } = { inet: '10.10.20.0/24', inet6: 'fd00:10:10:20::/64' }
      await agent.untilPeer(family === 'inet' ? inet : inet6, 'in sync')
      const routes = (await ip(namespace, '-4 route show')) + (await ip(namespace, '-6 route show'))
      assert.deepEqual(
        [routes.includes(inet), routes.includes(inet6)],
        [family === 'inet', family === 'inet6'],
      )
      overlay.removeLease(key)
      await agent.untilPeerGone(family === 'inet' ? inet : inet6)
    }
    assert.deepEqual((await agent.status()).problems, [])
  })

  test('what a hostile lease says of IPv6 is judged as what it says of IPv4', async () => {
    for (const [key, text, why] of [
      [
        '10.10.20.0-24&fd00:99::-64',
        value(V4, V6),
        /^fd00:99::\/64 is outside the network fd00:10:10::\/48$/,
      ],
      ['10.10.20.0-24&fd00:10:10:10::-64', value(V4, V6), /^fd00:10:10:10::\/64 overlaps our own subnet/],
      ['10.10.20.0-24&fd00:10:10::-48', value(V4, V6), /^fd00:10:10::\/48 overlaps our own subnet/],
      ['0.0.0.0-0&fd00:10:10:20::-64', value(V4), /^it has no public IP for fd00:10:10:20::\/64$/],
      [
        '0.0.0.0-0&fd00:10:10:20::-64',
        value(V6.replace('fd00:192::20', 'fd00:192::10')),
        /^public IP fd00:192::10 is our own$/,
      ],
      ['0.0.0.0-0&fd00:10:10:20::-64', value(V6.replace('fd00:192::20', 'ff02::1')), /multicast/],
      ['0.0.0.0-0&fd00:10:10:20::-64', value(V6.replace('fd00:192::20', '::1')), /loopback/],
      ['0.0.0.0-0&fd00:10:10:20::-64', value(V6.replace('02:00', '01:00')), /not a unicast address/],
    ] as const) {
      overlay.writeLease(key, text)
      const subnet = key.startsWith('0.') ? 'fd00:10:10:20::/64' : '10.10.20.0/24'
      assert.match((await agent.untilPeer(subnet, 'refused')).why, why, key)
      overlay.removeLease(key)
      await agent.untilPeerGone(subnet)
    }
  })
})

test('in an IPv4 network a lease of both families is reached over IPv4 (V13)', async () => {
  await using overlay = await Overlay.build(1, configOf('inet'))
  const agent = overlay.start(overlay.host(0))
  await agent.untilReady()
  const data = '{"VNI":1,"VtepMAC":"02:00:00:00:00:20"}'
  overlay.writeLease(
    '10.10.20.0-24&fd00:10:10:20::-64',
    `{"PublicIP":"192.168.1.20","PublicIPv6":"fd00:192::20","BackendType":"vxlan","BackendData":${data},"BackendV6Data":${data}}`,
  )
  await agent.untilPeer('10.10.20.0/24', 'in sync')
  const { namespace } = overlay.host(0)
  assert.match(await ip(namespace, '-4 route show'), /^10\.10\.20\.0\/24 .*dev flannel\.1/m)
  assert.doesNotMatch(await ip(namespace, '-6 route show'), /fd00:10:10:20/)
  assert.doesNotMatch(await ip(namespace, 'link show'), /flannel-v6/)
  assert.equal((await agent.status()).ready, true)
})

test('another IPv6 address of the external interface: peers are told, the subnet stays', async () => {
  await using overlay = await Overlay.connect(configOf('inet6'), 'sqlite', 'inet6')
  const [a, b] = [overlay.host(0), overlay.host(1)]
  await overlay.agent(0).end('SIGTERM')
  const agent = overlay.start(a, '--public-ipv6=', '--iface=eth0')
  await agent.untilReady()
  const { lease, ipv6Mac } = await agent.status()

  await ip(a.namespace, 'address del fd00:192::10/64 dev eth0')
  await agent.untilStatus('without an address', ({ problems }) =>
    problems.includes('host: eth0 has a link-local IPv6 address only'),
  )
  await ip(a.namespace, 'address add fd00:192::50/64 dev eth0 nodad')
  await agent.untilStatus('at its new address', (now) => now.ready && now.publicIpv6 === 'fd00:192::50')
  const now = await agent.status()
  assert.deepEqual([now.lease, now.ipv6Mac], [lease, ipv6Mac])
  await overlay
    .agent(1)
    .untilStatus('told', ({ peers }) =>
      peers.some(({ publicIpv6, state }) => publicIpv6 === 'fd00:192::50' && state === 'in sync'),
    )
  assert.ok((await bridge(b.namespace, 'fdb show dev flannel-v6.1')).includes(`${ipv6Mac} dst fd00:192::50 `))
  for (const destination of containersOf(b)) await assertReaches(a.container, destination)
})

test('the packet filter has rules of both families, in either of its languages', async () => {
  const config = (nftables: boolean): string =>
    configOf('dual').replace('{', `{"EnableNFTables": ${nftables}, `)
  await using overlay = await Overlay.build(1, config(false), 'sqlite', 'dual')
  const host = overlay.host(0)
  const agent = overlay.start(host, '--ip-masq', '--iptables-resync=1')
  await agent.untilReady()
  const inside = (...words: string[]): Promise<string> => run('nsenter', [`--net=${host.path}`, ...words])
  for (const [program, network, multicast] of [
    ['iptables-save', '10.10.0.0/16', '224.0.0.0/4'],
    ['ip6tables-save', 'fd00:10:10::/48', 'ff00::/8'],
  ] as const) {
    const rules = await inside(program)
    assert.ok(rules.includes(`-A FLANNEL-POSTRTG -s ${network} ! -d ${multicast} `), rules)
    assert.ok(rules.includes(`-A FLANNEL-FWD -d ${network} `), rules)
  }
  await overlay.putConfig(config(true))
  await agent.untilSaid(/^firewall: flannel-ipv6/)
  assert.match(
    await inside('nft', 'list', 'table', 'ip', 'flannel-ipv4'),
    /ip saddr 10\.10\.0\.0\/16 .*masquerade/,
  )
  assert.match(
    await inside('nft', 'list', 'table', 'ip6', 'flannel-ipv6'),
    /ip6 saddr fd00:10:10::\/48 .*masquerade/,
  )
  await agent.untilReady()
})
