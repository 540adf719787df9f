// Draws every dashboard to a PNG: node draw.mjs <address of a Prometheus> <from> <to> <directory>
//
// The times are seconds since the epoch. Ends with 1 when a panel has no data. Needs Chromium (CHROMIUM names it).
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { build, preview } from 'vite';

const [prometheus, from, to, directory] = process.argv.slice(2);
const here = import.meta.dirname;
const STEPS = 300;
// Between two scrapes of the run that is drawn.
const SCRAPE = Number(process.env.SCRAPE ?? 1);
const step = Math.max(SCRAPE, Math.round((to - from) / STEPS));

/** An expression as Grafana sends it, with everything chosen. */
function filled(expression) {
  const window = Math.max(step + SCRAPE, 4 * SCRAPE);
  return expression
    .replaceAll('$__rate_interval', `${window}s`)
    .replace(/\$(job|instance|partition)\b/g, '.+');
}

async function ask(call, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${call}`, { method: 'POST', body: new URLSearchParams(parameters) });
  const { data, error } = await answer.json();
  if (error) {
    throw new Error(`${parameters.query}: ${error}`);
  }
  return data.result;
}

const name = (legend, labels) => legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '').trim();
const number = (text) => (Number.isFinite(Number(text)) ? Number(text) : null);

/** Points at every step; null where there is none. */
function points(values) {
  const known = new Map(values.map(([time, value]) => [time, number(value)]));
  const times = [];
  for (let time = Number(from); time <= Number(to); time += step) {
    times.push([time, known.get(time) ?? null]);
  }
  return times;
}

async function answer(panel) {
  const [series, rows] = [[], []];
  for (const { expr, legendFormat } of panel.targets) {
    const query = filled(expr);
    if (panel.type === 'table') {
      rows.push(...(await ask('query', { query, time: to })).map(({ metric }) => metric));
      continue;
    }
    const found = await ask('query_range', { query, start: from, end: to, step });
    series.push(...found.map(({ metric, values }) => ({ name: name(legendFormat, metric), points: points(values) })));
  }
  return { series: series.filter((one) => one.points.some(([, value]) => value !== null)), rows };
}

const site = {
  root: path.join(here, 'page'),
  configFile: false,
  logLevel: 'error',
  base: './',
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'globalThis' },
  resolve: {
    alias: [
      { find: /^react-custom-scrollbars-2$/, replacement: path.join(here, 'page/scrollbars.mjs') },
      { find: 'scrollbars-original', replacement: path.join(here, 'node_modules/react-custom-scrollbars-2/lib/index.js') },
    ],
  },
  build: { outDir: path.join(here, 'node_modules/.page'), emptyOutDir: true, minify: false, chunkSizeWarningLimit: 99999 },
  preview: { host: '127.0.0.1', port: 0 },
};
await build(site);
const server = await preview(site);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
let empty = 0;
const boards = path.join(here, '../dashboards');
for (const file of (await readdir(boards)).sort()) {
  const dashboard = JSON.parse(await readFile(path.join(boards, file), 'utf8'));
  const answers = {};
  for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
    answers[panel.id] = await answer(panel);
    if (!answers[panel.id].series.length && !answers[panel.id].rows.length) {
      console.error(`${file}: ${panel.title}: no data`);
      empty += 1;
    }
  }
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
  page.on('pageerror', (error) => {
    console.error(`${file}: ${error.stack}`);
    empty += 1;
  });
  await page.goto(server.resolvedUrls.local[0]);
  await page.waitForFunction(() => window.drawBoard);
  await page.evaluate((drawing) => window.drawBoard(drawing), { dashboard, answers, from: Number(from), to: Number(to) });
  await page.waitForLoadState('networkidle');
  await page.waitForFunction((count) => document.querySelectorAll('canvas').length >= count, 1);
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
  await page.locator('#board').screenshot({ path: path.join(directory, file.replace('.json', '.png')) });
  await page.close();
}
await browser.close();
await server.close();
process.exit(empty ? 1 : 0);
