/** Whole agents over a real API server: IPv4, IPv6 alone, and both; flanneld among them; the server away and back. */

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { type Family, familyBits, type Ip } from '../../src/address/ip.ts'
import { parsePrefix, prefixBase, prefixLength } from '../../src/address/prefix.ts'
import { attachContainer } from '../../src/lab/build.ts'
import { bridge, ip, ipBatch } from '../../src/lab/command.ts'
import { containerAddresses, LAB_FAMILIES, type LabHost } from '../../src/lab/topology.ts'
import { machineState, tweed } from '../tweed.ts'
import type { Agent } from './agent.ts'
import { assertReaches, configOf, containersOf, FAMILIES, statusOf, subnetEnvOf } from './families.ts'
import { KubernetesOverlay, nodeOf } from './kubernetes-overlay.ts'

let machine: string
before(async () => {
  machine = await machineState()
})
after(async () => {
  assert.equal(await machineState(), machine)
})

/** What flanneld calls what it has in a family. */
const FLANNELS = {
  inet: {
    link: 'flannel.1',
    mtu: 1450,
    data: 'backend-data',
    publicIp: 'public-ip',
    variable: 'FLANNEL_SUBNET',
  },
  inet6: {
    link: 'flannel-v6.1',
    mtu: 1430,
    data: 'backend-v6-data',
    publicIp: 'public-ipv6',
    variable: 'FLANNEL_IPV6_SUBNET',
  },
} as const satisfies Record<Family, unknown>

function macOf(family: Family, host: LabHost): string {
  const last = host.publicIp.split(/[.:]/).at(-1)
  return `6e:f7:a4:d8:${family === 'inet' ? '04' : '06'}:${last}`
}

/** A host's address of the family. */
function addressOf(family: Family, { publicIps }: LabHost): Ip {
  const address = publicIps[family]
  assert.ok(address !== undefined)
  return address
}

/** What flanneld writes on its node. */
function flannelAnnotations(host: LabHost, families: readonly Family[]): Record<string, string> {
  const annotations: Record<string, string> = { 'backend-type': 'vxlan', 'kube-subnet-manager': 'true' }
  for (const family of families) {
    const { data, publicIp } = FLANNELS[family]
    annotations[data] = `{"VNI":1,"VtepMAC":"${macOf(family, host)}"}`
    annotations[publicIp] = addressOf(family, host)
  }
  return annotations
}

/** What flanneld does on its host, for peers with these MACs; and a container. */
async function actAsFlanneld(
  host: LabHost,
  families: readonly Family[],
  peers: readonly { readonly host: LabHost; readonly macs: Readonly<Record<Family, string>> }[],
): Promise<void> {
  const { namespace } = host
  for (const family of families) {
    const { link, mtu } = FLANNELS[family]
    const own = host.subnets[family]
    assert.ok(own !== undefined)
    const vxlan = `type vxlan id 1 local ${addressOf(family, host)} dev eth0 dstport 8472 nolearning`
    await ip(namespace, `link add ${link} address ${macOf(family, host)} mtu ${mtu} ${vxlan}`)
    const address = `${prefixBase(own)}/${familyBits(family)}`
    await ipBatch(namespace, [`address add ${address} dev ${link} nodad`, `link set ${link} up`])
    for (const { host: peer, macs } of peers) {
      const subnet = peer.subnets[family]
      assert.ok(subnet !== undefined)
      const base = prefixBase(subnet)
      await ip(namespace, `neigh replace ${base} lladdr ${macs[family]} dev ${link} nud permanent`)
      const fdb = `fdb replace ${macs[family]} dev ${link} dst ${addressOf(family, peer)} self permanent`
      await bridge(namespace, fdb)
      await ip(namespace, `route replace ${subnet} via ${base} dev ${link} onlink`)
    }
  }
  const lines = families.map((family) => {
    const subnet = host.subnets[family]
    assert.ok(subnet !== undefined)
    return `${FLANNELS[family].variable}=${containerAddresses(subnet).gateway}/${prefixLength(subnet)}\n`
  })
  await writeFile(host.subnetFile, `${lines.join('')}FLANNEL_MTU=1430\n`)
  await attachContainer(host)
}

for (const family of LAB_FAMILIES) {
  const families = FAMILIES[family]

  describe(`two nodes, ${family}`, () => {
    let cluster: KubernetesOverlay
    let hosts: readonly [LabHost, LabHost, LabHost]
    before(async () => {
      cluster = await KubernetesOverlay.connect(family)
      const { overlay } = cluster
      hosts = [overlay.host(0), overlay.host(1), overlay.host(2)]
    })
    after(() => cluster?.[Symbol.asyncDispose]())

    async function assertConnected(a: LabHost, b: LabHost): Promise<void> {
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        assert.equal(containersOf(to).length, families.length)
        for (const destination of containersOf(to)) {
          await assertReaches(from.container, destination)
          await assertReaches(from, destination)
        }
      }
    }

    test('containers reach each other, and hosts reach containers, over each family', async () => {
      await assertConnected(hosts[0], hosts[1])
    })

    test('subnet.env is as flannel writes it; the status has the lease and no problem', async () => {
      assert.equal(await readFile(hosts[0].subnetFile, 'utf8'), subnetEnvOf(family))
      const status = await cluster.overlay.agent(0).status()
      assert.partialDeepStrictEqual(status, statusOf(family))
      assert.deepEqual(status.problems, [])
    })

    test('the node says what its host is, and that it has a network', async () => {
      const { mac, ipv6Mac } = await cluster.overlay.agent(0).status()
      const expected = flannelAnnotations(hosts[0], families)
      for (const each of families) {
        const own = each === 'inet' ? mac : ipv6Mac
        expected[FLANNELS[each].data] = `{"VNI":1,"VtepMAC":"${own}"}`
      }
      assert.deepEqual(await cluster.annotations(hosts[0]), expected)
      await untilCondition(hosts[0])
    })

    /** Until the node has the condition that flannel sets. */
    async function untilCondition(host: LabHost): Promise<void> {
      interface WithStatus {
        readonly status: { readonly conditions?: readonly { readonly reason: string }[] }
      }
      const path = `/api/v1/nodes/${nodeOf(host)}`
      for (let found = false; !found; ) {
        const { body } = await cluster.kubernetes.request<WithStatus>('GET', path)
        found = body.status.conditions?.some(({ reason }) => reason === 'FlannelIsUp') === true
      }
    }

    test('an agent that comes again has nothing to do, in the kernel and in the API', async () => {
      const { metadata } = await cluster.kubernetes.node(nodeOf(hosts[0]))
      const before = (await cluster.overlay.agent(0).status()).lease
      assert.equal(await cluster.overlay.agent(0).end('SIGTERM'), 0)
      const again = cluster.start(hosts[0])
      await again.untilReady()
      assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0)
      assert.deepEqual((await again.status()).lease, before)
      const now = await cluster.kubernetes.node(nodeOf(hosts[0]))
      assert.equal(now.metadata.resourceVersion, metadata.resourceVersion)
    })

    test('a node with flanneld is a peer like another, until it is deleted', async () => {
      const [a, b, c] = hosts
      const statuses = await Promise.all(cluster.overlay.agents.map((agent) => agent.status()))
      const peers = [a, b].map((host, i) => ({
        host,
        macs: { inet: statuses[i]?.mac ?? '', inet6: statuses[i]?.ipv6Mac ?? '' },
      }))
      await actAsFlanneld(c, families, peers)
      await cluster.createNode(c, flannelAnnotations(c, families))
      for (const agent of cluster.overlay.agents) await agent.untilPeer(c.subnet, 'in sync')
      await assertConnected(a, c)
      await cluster.deleteNode(c)
      for (const agent of cluster.overlay.agents) {
        await agent.untilPeerGone(c.subnet)
        const { problems } = await agent.status()
        assert.deepEqual(problems, [])
      }
      const links = families.map((each) => bridge(a.namespace, `fdb show dev ${FLANNELS[each].link}`))
      assert.doesNotMatch((await Promise.all(links)).join(''), /6e:f7:a4/)
    })

    test('the server away and back: no packet is lost, an agent may even start meanwhile', async () => {
      const { kubernetes, overlay } = cluster
      const [a, b, c] = hosts
      await overlay.undisturbed(async () => {
        await kubernetes.stop()
        for (const agent of overlay.agents) {
          await agent.untilStatus('without a registry', ({ registry }) => !registry.available)
        }
        await overlay.agent(1).end('SIGKILL')
        const again = cluster.start(b)
        await again.untilSaid(/ECONNREFUSED/)
        await kubernetes.start()
        for (const agent of overlay.agents) await agent.untilReady()
        assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0)
        await cluster.createNode(c, flannelAnnotations(c, families))
        for (const agent of overlay.agents) await agent.untilPeer(c.subnet, 'in sync')
        await cluster.deleteNode(c)
        for (const agent of overlay.agents) await agent.untilPeerGone(c.subnet)
      })
      await assertConnected(a, b)
    })
  })
}

/** The first of its network, and of an unusual length: none that a config would choose. */
const POD_CIDR = parsePrefix('fd00:10:10::/80')

describe('one node', () => {
  let cluster: KubernetesOverlay
  let host: LabHost
  let agent: Agent
  before(async () => {
    cluster = await KubernetesOverlay.build(1, 0, 'inet6')
    host = cluster.overlay.host(0)
    agent = cluster.start(host)
  })
  after(() => cluster?.[Symbol.asyncDispose]())

  test('an agent waits for its node, and for the podCIDR of that', async () => {
    await agent.untilSaid(/nodes "host-a" not found$/)
    await cluster.kubernetes.createNode('host-a')
    await agent.untilSaid(/^node "host-a" pod cidr not assigned$/)
    await cluster.kubernetes.patchNode('host-a', { spec: { podCIDR: POD_CIDR, podCIDRs: [POD_CIDR] } })
    await agent.untilReady()
  })

  test('another config in the file is taken up, whatever the podCIDR', async () => {
    await writeFile(cluster.configPath, configOf('inet6').replace('vxlan"', 'host-gw"'))
    await agent.untilStatus('with another backend', ({ ready, backend }) => ready && backend === 'host-gw')
    assert.equal((await cluster.annotations(host))['backend-v6-data'], 'null')
    await writeFile(cluster.configPath, configOf('inet6'))
    await agent.untilStatus('with vxlan again', ({ ready, backend }) => ready && backend === 'vxlan')
    assert.match((await cluster.annotations(host))['backend-v6-data'] ?? '', /VtepMAC/)
    const hasAddress = async () =>
      (await ip(host.namespace, '-6 address show')).includes(`${prefixBase(POD_CIDR)}/128 scope global`)
    while (!(await hasAddress())) await agent.status()
  })

  test('a node that is deleted and comes back is ours again, and nothing in the kernel is touched', async () => {
    const operations = (await agent.status()).counters.operations
    await cluster.deleteNode(host)
    await agent.untilSaid(/lost/)
    await cluster.kubernetes.createNode('host-a', { podCIDRs: [POD_CIDR] })
    await agent.untilStatus(
      'held again',
      ({ registry, problems }) => registry.available && problems.length === 0,
    )
    while ((await cluster.annotations(host))['backend-type'] !== 'vxlan') await agent.status()
    assert.deepEqual((await agent.status()).counters.operations, operations)
  })

  test('an agent whose node has another podCIDR now ends, and takes its network with it', async () => {
    await cluster.deleteNode(host)
    await cluster.kubernetes.createNode('host-a', { podCIDRs: ['fd00:10:10:77::/64'] })
    assert.equal(await agent.untilEnded(), 1)
    assert.doesNotMatch(await ip(host.namespace, 'link show'), /flannel/)
    agent = cluster.start(host)
    const { lease } = await agent.untilReady()
    assert.equal(lease.ipv6Subnet, 'fd00:10:10:77::/64')
  })

  test("an operator's node-public-ipv6 goes before -public-ipv6", async () => {
    await agent.end('SIGTERM')
    await ip(host.namespace, 'address add fd00:192::99/64 dev eth0 nodad')
    await cluster.annotate(host, { 'node-public-ipv6': 'fd00:192::99' })
    agent = cluster.start(host)
    assert.equal((await agent.untilReady()).publicIpv6, 'fd00:192::99')
    assert.equal((await cluster.annotations(host))['public-ipv6'], 'fd00:192::99')
  })
})

test('the command line: what cannot be is refused in one line', async () => {
  const refused = async (...words: string[]) => {
    const { code, stderr } = await tweed(...words).catch((error) => error)
    return `${code}: ${stderr}`
  }
  assert.match(
    await refused('agent', '-kube-subnet-mgr', '-registry=sqlite:x'),
    /^2: .*-kube-subnet-mgr is the same as -registry=kubernetes:/,
  )
  assert.match(await refused('agent', '-kube-subnet-mgr'), /^2: .*this is no pod/)
  const registry = ['--registry=kubernetes:', '--kube-api-url=http://127.0.0.1:1']
  assert.match(await refused('leases', 'release', ...registry, '10.10.10.0/24'), /^2: tweed: a lease stands/)
})
