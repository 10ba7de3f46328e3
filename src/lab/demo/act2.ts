/** Act 2: subnets and FDB entries come from the registry; the kernel asks the agent for the rest. */

import type { ChildProcess } from 'node:child_process'
import type { Ip } from '../../address/ip.ts'
import type { Neighbour } from '../../netlink/neighbour.ts'
import { attachContainer } from '../build.ts'
import { seedRegistry } from '../registry.ts'
import type { LabRegistry } from '../topology.ts'
import { type News, Watch } from '../watch.ts'
import { containerIp, linkMac, milliseconds, pingOnce, type Stage, startBoth } from './stage.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1, "L3Miss": true}}'

const REGISTRIES = { sqlite: 'one SQLite file', etcd: 'etcd' } as const satisfies Record<LabRegistry, string>

export async function overlayWithMisses(stage: Stage): Promise<ChildProcess[]> {
  const { lab, hostA, hostB, narrator, program } = stage
  narrator.act('Act 2: the overlay with L3 misses')
  narrator.say(
    `Now an agent runs on each host, and they share a registry: ${REGISTRIES[lab.registry]}. The operator writes the\n` +
      'network config into it, and reserves a subnet for each host (else each takes a free one).',
  )
  await seedRegistry(lab, CONFIG, program)
  narrator.lines([
    CONFIG,
    ...lab.hosts.map(({ name, publicIp, subnet }) => `${subnet} for ${name}, ${publicIp}`),
  ])
  const agents = await startBoth(stage)
  await showLinks(stage)
  await showForwarding(stage)

  narrator.say(
    'A container on each host, connected as Docker does it: a bridge with the first address of subnet.env.',
  )
  for (const host of [hostA, hostB]) {
    await attachContainer(host)
    await narrator.table(host.container, 'ip -4 -br address show dev eth0')
  }
  await showMiss(stage)
  return agents
}

async function showLinks({ hostA, hostB, narrator }: Stage): Promise<void> {
  await narrator.table(hostA, `cat ${hostA.subnetFile}`)
  for (const host of [hostA, hostB]) {
    const base = host.subnet.replace('/24', '')
    const [address = ''] = await narrator.table(host, 'ip -4 -br address show dev flannel.1')
    narrator.check(
      `${host.name} leased ${host.subnet}; flannel.1 has ${base}`,
      address.includes(` ${base}/32`),
      address,
    )
    const routes = await narrator.table(host, 'ip route show dev flannel.1')
    const whole = routes.length === 1 && routes.every((route) => route.startsWith('10.10.0.0/16 '))
    narrator.check('the whole 10.10.0.0/16 is routed into flannel.1', whole, routes.join('; '))
  }
}

/** The FDB is complete and the neighbour table empty, before any traffic. */
async function showForwarding({ hostA, hostB, narrator }: Stage): Promise<void> {
  narrator.say(
    "Behind which host stands which VTEP (the other's flannel.1) is in the registry, so nothing is learned.",
  )
  for (const [host, peer] of [
    [hostA, hostB],
    [hostB, hostA],
  ] as const) {
    const mac = await linkMac(peer, 'flannel.1')
    const fdb = await narrator.table(host, 'bridge fdb show dev flannel.1')
    const known = fdb.length === 1 && fdb.every((line) => line.startsWith(`${mac} dst ${peer.publicIp} `))
    narrator.check(
      `${host.name} knows that ${mac} is behind ${peer.publicIp}, before any traffic`,
      known,
      fdb.join('; '),
    )
  }
  const neighbours = await narrator.table(hostA, 'ip -4 neigh show dev flannel.1')
  narrator.check('host-A knows no neighbour yet', neighbours.length === 0, neighbours.join('; '))
}

async function showMiss(stage: Stage): Promise<void> {
  const { hostA, hostB, narrator } = stage
  const target = containerIp(hostB)
  const mac = await linkMac(hostB, 'flannel.1')
  narrator.say(
    `c1 pings c2, ${target}. For the first packet host-A's kernel has no neighbour: an L3 miss. It asks, and the\n` +
      "agent answers with the MAC of host-B's VTEP. (For the way back, host-B's kernel asks its own agent.)",
  )
  const isMiss = (news: News) => news.verb === 'get' && concerns(news, target)
  const isAnswer = (news: News) => news.verb === 'new' && concerns(news, target) && news.neighbour.mac === mac
  const watch = new Watch(hostA.path)
  try {
    let sentAt = 0
    watch.spin(isAnswer, 1) // Code that has run before runs faster.
    const { replies } = await pingOnce(stage, hostA.container, target, (at) => {
      sentAt = at
      watch.spin(isAnswer, 200)
    })
    const [reply] = replies
    narrator.check(`${target} answers`, reply !== undefined)
    const miss = await watch.first(`miss for ${target}`, isMiss)
    const answer = await watch.first(`answer for ${target}`, isAnswer)
    narrator.lines([
      `${milliseconds(0)}  c1 sends an echo request to ${target}`,
      `${milliseconds(miss.at - sentAt)}  RTM_GETNEIGH ${target}: the kernel of host-A asks`,
      `${milliseconds(answer.at - sentAt)}  RTM_NEWNEIGH ${target} lladdr ${mac}: the agent has answered`,
      `${milliseconds(reply?.time ?? 0)}  the echo reply is back at c1`,
    ])
    narrator.check(`the miss was answered within ${milliseconds(answer.at - sentAt)}`, true)
    const [again] = (await pingOnce(stage, hostA.container, target)).replies
    const misses = watch.news.filter(isMiss)
    narrator.check(
      `the next packet asks nobody, and is back after ${milliseconds(again?.time ?? 0)}`,
      again !== undefined && misses.length === 1,
      `${misses.length} misses`,
    )
  } finally {
    await watch.close()
  }
  const table = await narrator.table(hostA, 'ip -4 neigh show dev flannel.1')
  const known = table.some((line) => line.startsWith(`${target} lladdr ${mac} `))
  narrator.check(`host-A has the neighbour ${target} with host-B's VTEP MAC`, known, table.join('; '))
}

function concerns(news: News, ip: Ip): news is News & { readonly neighbour: Neighbour } {
  return 'neighbour' in news && news.neighbour.destination === ip
}
