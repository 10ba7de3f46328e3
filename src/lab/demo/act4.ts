/** Act 4: what is deleted comes back, and an agent that is away is not missed. */

import type { ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Mac } from '../../address/mac.ts'
import { prefixBase } from '../../address/prefix.ts'
import { AF_BRIDGE } from '../../netlink/rtnetlink.ts'
import { hostStatus, killAgent, startAgent } from '../agent.ts'
import { formatPingResult, type PingResult, ping } from '../ping.ts'
import type { LabHost } from '../topology.ts'
import { atMost, type News, Watch } from '../watch.ts'
import { containerIp, linkMac, milliseconds, pingOnce, type Stage } from './stage.ts'

export async function itHolds(stage: Stage, agentA: ChildProcess): Promise<void> {
  const { hostB, narrator } = stage
  narrator.act('Act 4: it holds')
  const peerMac = await linkMac(hostB, 'flannel.1')
  await deleteEntries(stage, peerMac)
  await deleteLink(stage, peerMac)
  await killUnderTraffic(stage, agentA)
}

/** An entry that leads to host-B: how to see it, to delete it, and to know it when the kernel speaks of it. */
interface Entry {
  readonly name: string
  readonly table: string
  readonly deletion: string
  readonly matches: (news: News) => boolean
}

function entriesFor({ subnet, publicIp }: LabHost, mac: Mac): readonly Entry[] {
  const gateway = prefixBase(subnet)
  return [
    {
      name: 'FDB entry',
      table: 'bridge fdb show dev flannel.1',
      deletion: `bridge fdb del ${mac} dev flannel.1 dst ${publicIp}`,
      matches: (news) =>
        'neighbour' in news && news.neighbour.family === AF_BRIDGE && news.neighbour.mac === mac,
    },
    {
      name: 'neighbour',
      table: 'ip -4 neigh show dev flannel.1',
      deletion: `ip neigh del ${gateway} dev flannel.1`,
      // The kernel first tells that it FAILED, without a MAC, and then that it is deleted.
      matches: (news) =>
        'neighbour' in news &&
        news.neighbour.destination === gateway &&
        (news.verb === 'delete' || news.neighbour.mac === mac),
    },
    {
      name: 'route',
      table: 'ip route show dev flannel.1',
      deletion: `ip route del ${subnet}`,
      matches: (news) =>
        'route' in news && `${news.route.destination}/${news.route.destinationLength}` === subnet,
    },
  ]
}

async function deleteEntries({ hostA, hostB, narrator }: Stage, peerMac: Mac): Promise<void> {
  narrator.say('Somebody deletes things on host-A by hand. The kernel says so, and the agent puts them back.')
  for (const { name, table, deletion, matches } of entriesFor(hostB, peerMac)) {
    const before = await narrator.read(hostA, table)
    const watch = new Watch(hostA.path)
    try {
      const deleting = narrator.command(hostA, deletion)
      watch.spin((news) => news.verb === 'new' && matches(news), 200)
      await deleting
      const gone = await watch.first(`deleted ${name}`, (news) => news.verb === 'delete' && matches(news))
      const back = await watch.first(`${name} again`, (news) => news.verb === 'new' && matches(news), gone)
      const after = await narrator.table(hostA, table)
      const took = milliseconds(atMost(gone, back))
      narrator.check(`the ${name} is back within ${took}`, same(before, after), after.join('; '))
    } finally {
      await watch.close()
    }
  }
}

async function deleteLink(stage: Stage, peerMac: Mac): Promise<void> {
  const { hostA, hostB, narrator } = stage
  narrator.say('The link itself is deleted, and with it goes everything that was on it.')
  const tables = [
    'ip -4 -br address show dev flannel.1',
    ...entriesFor(hostB, peerMac).map(({ table }) => table),
  ]
  const before = await readAll(stage, hostA, tables)
  const mac = await linkMac(hostA, 'flannel.1')
  const watch = new Watch(hostA.path)
  try {
    await narrator.command(hostA, 'ip link delete flannel.1')
    const gone = await watch.first('deleted entry', ({ verb }) => verb === 'delete')
    const back = await Promise.all(
      entriesFor(hostB, peerMac).map(({ name, matches }) =>
        watch.first(`${name} again`, (news) => news.verb === 'new' && matches(news), gone),
      ),
    )
    const took = Math.max(...back.map((news) => news.at - gone.at))
    const macNow = await linkMac(hostA, 'flannel.1')
    narrator.check(`flannel.1 is back with the same MAC, ${mac}`, macNow === mac, macNow)
    const after: string[] = []
    for (const table of tables) after.push(...(await narrator.table(hostA, table)))
    narrator.check(
      `with everything on it, after ${milliseconds(took)}`,
      same(before, after),
      after.join('; '),
    )
  } finally {
    await watch.close()
  }
  const { replies } = await pingOnce(stage, hostA.container, containerIp(hostB))
  narrator.check(`c1 reaches ${containerIp(hostB)}`, replies.length === 1)
}

/** Milliseconds between two packets while the agent is away. */
const INTERVAL = 10
/** How long traffic flows before the agent is killed, without it, and after it is back. Milliseconds. */
const PHASES = { before: 300, without: 1500, after: 300 }

async function killUnderTraffic(stage: Stage, agentA: ChildProcess): Promise<void> {
  const { lab, hostA, hostB, narrator, program, signal } = stage
  const target = containerIp(hostB)
  narrator.say(
    `c1 pings c2 every ${INTERVAL} ms. Meanwhile the agent of host-A is killed (SIGKILL), and is away for ` +
      `${PHASES.without / 1000} s.`,
  )
  const enough = new AbortController()
  const pinging = ping({
    netns: hostA.container.path,
    destination: target,
    interval: INTERVAL,
    timeout: 3000,
    signal: AbortSignal.any([signal, enough.signal]),
  })
  let result: PingResult
  try {
    await sleep(PHASES.before, undefined, { signal })
    await killAgent(agentA)
    narrator.check('the agent of host-A is dead', agentA.signalCode === 'SIGKILL')
    await sleep(PHASES.without, undefined, { signal })
    await startAgent(lab, hostA, program, signal)
    narrator.check('it runs again', true)
    await sleep(PHASES.after, undefined, { signal })
  } finally {
    enough.abort()
    result = await pinging
  }
  narrator.lines(formatPingResult(result))
  narrator.check(
    `no packet of ${result.sent} was lost`,
    result.sent > 0 && result.lost.length === 0,
    `icmp_seq ${result.lost.join(', ')}`,
  )
  const { counters } = await hostStatus(hostA)
  narrator.check(
    `its ${counters.turns === 1 ? 'first turn' : `${counters.turns} turns`} changed nothing: 0 operations`,
    counters.turns > 0 && counters.operations === 0,
    `${counters.operations} operations`,
  )
}

async function readAll({ narrator }: Stage, host: LabHost, tables: readonly string[]): Promise<string[]> {
  const lines: string[] = []
  for (const table of tables) lines.push(...(await narrator.read(host, table)))
  return lines
}

/** Whether two tables say the same; the id of a nexthop object is the agent's own affair. */
function same(before: readonly string[], after: readonly string[]): boolean {
  const normal = (lines: readonly string[]) =>
    lines.map((line) => line.replace(/ nhid \d+/, '').trim()).join('\n')
  return normal(before) === normal(after)
}
