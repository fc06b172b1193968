// A certified OpenID Provider over TLS 1.3 with everything strict: PKCE required, refresh tokens rotate, a reused one
// ends its family, revocation, `iss` in answers. /test/* counts requests, sets how long tokens live and how long a refresh
// takes, gives tokens as if so many accounts had been connected, and says which access tokens live.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `https://127.0.0.1:${settings.port}`;
const counts = {};
let life = 3600;
let pause = 0;

// Everything is kept: the adapter that comes along forgets after a thousand things.
const kept = new Map();
const families = new Map();
class Kept {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) {
    kept.set(this.key(id), payload);
    if (payload.grantId && this.model !== 'Grant') {
      if (!families.has(payload.grantId)) families.set(payload.grantId, new Set());
      families.get(payload.grantId).add(this.key(id));
    }
  }
  async find(id) { return kept.get(this.key(id)); }
  async findByUid(uid) { return [...kept.entries()].find(([key, each]) => key.startsWith(`${this.model}:`) && each.uid === uid)?.[1]; }
  async findByUserCode(code) { return [...kept.entries()].find(([key, each]) => key.startsWith(`${this.model}:`) && each.userCode === code)?.[1]; }
  async consume(id) { kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { kept.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const key of families.get(grantId) ?? []) kept.delete(key);
    families.delete(grantId);
  }
}

const provider = new Provider(issuer, {
  adapter: Kept,
  clients: [{
    client_id: 'authpipe-e2e',
    client_secret: settings.client_secret,
    redirect_uris: [settings.redirect_uri],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  pkce: { required: () => true },
  features: { revocation: { enabled: true }, devInteractions: { enabled: true } },
  rotateRefreshToken: true,
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  scopes: ['openid', 'offline_access', 'profile'],
  ttl: { AccessToken: () => life, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 3600, AuthorizationCode: 60, IdToken: 3600 },
  cookies: { keys: ['a-key-of-the-test'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});
const count = (name) => { counts[name] = (counts[name] ?? 0) + 1; };
provider.on('grant.success', (ctx) => count(ctx.oidc.params.grant_type));
provider.on('grant.error', (ctx) => count('error'));
provider.on('grant.revoked', () => count('grant_revoked'));

async function seed(count) {
  const client = await provider.Client.find('authpipe-e2e');
  const scope = 'openid offline_access profile';
  const tokens = [];
  for (let number = 0; number < count; number += 1) {
    const accountId = `seeded-${kept.size}`;
    const grant = new provider.Grant({ accountId, clientId: client.clientId });
    grant.addOIDCScope(scope);
    const given = { accountId, client, grantId: await grant.save(), scope, gty: 'authorization_code', expiresWithSession: false };
    tokens.push({
      refresh_token: await new provider.RefreshToken(given).save(),
      access_token: await new provider.AccessToken(given).save(),
    });
  }
  return tokens;
}
const lives = async (token) => {
  const found = await provider.AccessToken.find(token);
  return Boolean(found && !found.isExpired);
};
const read = async (req) => {
  const pieces = [];
  for await (const piece of req) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString());
};

const app = provider.callback();
https.createServer({ cert: readFileSync(settings.certificate), key: readFileSync(settings.key), minVersion: 'TLSv1.3' }, async (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/test/counts') return res.end(JSON.stringify(counts));
  if (url.pathname === '/test/life') { life = Number(url.searchParams.get('seconds')); return res.end('{}'); }
  if (url.pathname === '/test/pause') { pause = Number(url.searchParams.get('seconds')); return res.end('{}'); }
  if (url.pathname === '/test/seed') return res.end(JSON.stringify(await seed(Number(url.searchParams.get('count')))));
  if (url.pathname === '/test/living') return res.end(JSON.stringify(await Promise.all((await read(req)).map(lives))));
  if (url.pathname === '/token') {
    count('asked');
    if (pause) await new Promise((done) => { setTimeout(done, pause * 1000); });
  }
  if (url.pathname === '/token/revocation') count('revocation');
  return app(req, res);
}).listen(settings.port, '127.0.0.1');
