/** iptables as others leave it: flushed, reordered, locked, full of foreign and of old rules. */

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { parsePrefix } from '../../src/address/prefix.ts'
import { Iptables } from '../../src/masquerade/iptables.ts'
import { DONE, RULES, repair, save, saveAll, shell, VARIANTS } from './firewall-fixture.ts'
import { Host } from './namespace.ts'

/** The lock of legacy iptables is one for the machine; these tests have their own. */
const LOCK = join(tmpdir(), `twq-${process.pid}.lock`)
process.env['XTABLES_LOCKFILE'] = LOCK
process.on('exit', () => rmSync(LOCK, { force: true }))

const NAT = `
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.1.0/24 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 -d 10.10.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.10.0.0/16 -d 10.10.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.10.0.0/16 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
`

for (const program of VARIANTS) {
  describe(program, () => {
    it('lists the rules as flannel writes them, and has nothing to do a second time', async () => {
      await using host = await Host.create('192.0.2.1')
      await repair(new Iptables({ netns: host.path, program }))
      assert.deepEqual(await new Iptables({ netns: host.path, program }).ensure(RULES), DONE)
      const nat = (await save(host, program)).split('*nat')[1] ?? ''
      assert.ok(nat.includes(NAT), nat)
    })

    it('is repaired, whatever was done to it', async () => {
      await using host = await Host.create('192.0.2.1')
      const firewall = new Iptables({ netns: host.path, program })
      await repair(firewall)
      const good = await saveAll(host, program)
      const mark = '-m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN'
      const jump = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
      const damages = [
        '-t nat -F FLANNEL-POSTRTG',
        '-t nat -F; $ -t nat -X; $ -F; $ -X',
        '-t nat -F POSTROUTING',
        '-t nat -I FLANNEL-POSTRTG -j MASQUERADE',
        `-t nat -D FLANNEL-POSTRTG 1; $ -t nat -A FLANNEL-POSTRTG ${mark}`,
        `-A FORWARD ${jump}; $ -A FORWARD ${jump}`,
        `-A FORWARD -p udp -m comment --comment "flanneld forward" -j ACCEPT`,
      ]
      for (const damage of damages) {
        for (const tool of [program, program.replace('ip', 'ip6')]) {
          await shell(host, `$ ${damage}`.replaceAll('$', tool))
          assert.notEqual(await saveAll(host, program), good, damage)
          await repair(firewall)
          assert.equal(await saveAll(host, program), good, damage)
        }
      }
    })

    it('keeps what is not ours', async () => {
      await using host = await Host.create('192.0.2.1')
      const foreign = `
        $ -t nat -N MINE; $ -t nat -A POSTROUTING -s 10.10.0.0/16 -d 10.10.0.0/16 -j RETURN
        $ -t nat -A POSTROUTING -o eth0 -m comment --comment "flanneld masquerade" -j MASQUERADE
        $ -t nat -A MINE -m comment --comment "flanneld masq" -j RETURN; $ -t mangle -A FORWARD -j ACCEPT
        $ -P FORWARD DROP; $ -A FORWARD -d 10.10.0.0/16 -j ACCEPT; $ -N FLANNEL; $ -A FORWARD -j FLANNEL`
      await shell(host, foreign.replaceAll('$', program))
      const before = await save(host, program)
      const firewall = new Iptables({ netns: host.path, program })
      await repair(firewall)
      const after = await save(host, program)
      assert.notEqual(after, before)
      const ours = /^.*(FLANNEL-POSTRTG|FLANNEL-FWD).*\n/gm
      assert.equal(after.replaceAll(ours, ''), before)
      await shell(host, `${program} -t nat -I POSTROUTING -o eth0 -j FLANNEL-POSTRTG`)
      await firewall.remove()
      assert.deepEqual(await firewall.remove(), DONE)
      assert.match(await save(host, program), /^-A POSTROUTING -o eth0 -j FLANNEL-POSTRTG$/m)
      await shell(host, `${program} -t nat -D POSTROUTING -o eth0 -j FLANNEL-POSTRTG`)
      await firewall.remove()
      assert.equal(await save(host, program), before)
    })

    it("takes the place of old flannel's rules, and of those of another subnet and family", async () => {
      await using host = await Host.create('192.0.2.1')
      const firewall = new Iptables({ netns: host.path, program })
      await repair(firewall)
      const good = await saveAll(host, program)
      await firewall.remove()
      const masq = '-m comment --comment "flanneld masq"'
      const forward = '-m comment --comment "flanneld forward"'
      await shell(
        host,
        `add() { ${program} "$@"; }
        add -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 ${masq} -j RETURN
        add -t nat -A POSTROUTING -s 10.10.0.0/16 -d 10.10.0.0/16 ${masq} -j RETURN
        add -t nat -A POSTROUTING -s 10.10.0.0/16 ! -d 224.0.0.0/4 ${masq} -j MASQUERADE --random-fully
        add -t nat -A POSTROUTING ! -s 10.10.0.0/16 -d 10.10.1.0/24 ${masq} -j RETURN
        add -t nat -A POSTROUTING ! -s 10.10.0.0/16 -d 10.10.0.0/16 ${masq} -j MASQUERADE --random-fully
        add -A FORWARD -s 10.10.0.0/16 ${forward} -j ACCEPT; add -A FORWARD -d 10.10.0.0/16 ${forward} -j ACCEPT`,
      )
      await repair(firewall)
      assert.equal(await saveAll(host, program), good)

      const network = parsePrefix('10.20.0.0/16')
      await firewall.ensure({
        ...RULES,
        networks: { inet: { network, subnet: parsePrefix('10.20.7.0/24') } },
      })
      const moved = await saveAll(host, program)
      assert.doesNotMatch(moved, /10\.10\.|fd10::/)
      assert.match(moved, /-s 10\.20\.7\.0\/24/)
    })
  })
}

describe('the lock of legacy iptables', () => {
  it('is waited for', async () => {
    await using host = await Host.create('192.0.2.1')
    const holder = await holdLock()
    const ensured = repair(new Iptables({ netns: host.path, program: 'iptables-legacy' }))
    await setTimeout(1000)
    assert.doesNotMatch(await saveAll(host, 'iptables-legacy'), /FLANNEL/)
    await release(holder)
    await ensured
  })

  it('is given up in the end, and taken in a later turn', async () => {
    await using host = await Host.create('192.0.2.1')
    const firewall = new Iptables({ netns: host.path, program: 'iptables-legacy' })
    const holder = await holdLock()
    const { changes, failures } = await firewall.ensure(RULES)
    assert.deepEqual(changes, [])
    assert.deepEqual(
      failures.map(({ family }) => family),
      ['inet', 'inet6'],
    )
    assert.match(failures[0]?.error.message ?? '', /currently holding the xtables lock/)
    await release(holder)
    await repair(firewall)
  })
})

/** Another program takes the lock, and has it when this resolves. */
async function holdLock(): Promise<ChildProcess> {
  const words = ['--no-fork', LOCK, 'sh', '-c', 'echo locked; exec sleep 60']
  const holder = spawn('flock', words, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(holder.stdout, 'data')
  return holder
}

async function release(holder: ChildProcess): Promise<void> {
  holder.kill('SIGKILL')
  await once(holder, 'exit')
}
